//! Blocking threads for the server's own work, which give way to the engine's threads.
//!
//! On a CPU, a forward pass waits for the slowest of its threads. A thread that takes a core from one of them, to parse
//! a large body, would delay the queries of all clients.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The niceness of these threads on Linux: each gets about a tenth of the time of an engine thread on the same core. If
/// they got less, other threads would wait longer for the locks that they hold, for example those of the allocator.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Runs a job on a blocking thread of the runtime.
pub(crate) fn spawn<T: Send + 'static>(runtime: &Handle, job: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    runtime.spawn_blocking(move || {
        give_way();
        job()
    })
}

/// Lowers the priority of the current thread for good: a process may not raise it again without privileges.
#[cfg(target_os = "linux")]
fn give_way() {
    use rustix::process::{getpriority_process, setpriority_process};

    // On Linux, `None` is the calling thread and not the process. Without these calls, the thread only competes more.
    if getpriority_process(None).is_ok_and(|niceness| niceness < NICENESS) {
        let _ = setpriority_process(None, NICENESS);
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn only_blocking_threads_give_way() {
        let before = getpriority_process(None).unwrap();
        let niceness = spawn(&Handle::current(), || getpriority_process(None).unwrap()).await.unwrap();
        assert_eq!(niceness, before.max(NICENESS));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
