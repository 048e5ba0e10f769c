//! `Pool`: the compute threads, which stay awake during a forward pass.
//!
//! A pass is about a hundred parallel loops, each followed by a single-threaded step. rayon's threads fall asleep in
//! such a step, and waking them takes a tenth of the time of a small model's pass.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rayon::Yield;

use crate::load_error::LoadError;

/// Number of times that a thread without work looks for some before it yields its core. The thread that gets the core
/// may keep it for milliseconds, while most waits take microseconds.
const SPIN_ROUNDS: u32 = 1000;

/// A pool of compute threads.
#[derive(Debug)]
pub(crate) struct Pool(rayon::ThreadPool);

/// A wait of a thread, which keeps its core for the first rounds.
#[derive(Default)]
struct Backoff {
    rounds: u32,
}

impl Backoff {
    fn wait(&mut self) {
        if self.rounds < SPIN_ROUNDS {
            self.rounds += 1;
            std::hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

/// A guard that marks a pass as over when it is dropped, even if the pass panics.
struct PassGuard<'a>(&'a AtomicBool);

impl Drop for PassGuard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Pool {
    /// Starts `threads` threads, named `name-0`, `name-1` and so on; 0 means one thread per core.
    pub(crate) fn new(threads: usize, name: String) -> Result<Self, LoadError> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder.thread_name(move |i| format!("{name}-{i}")).build();
        pool.map(Self).map_err(|error| LoadError::Threads(error.to_string()))
    }

    pub(crate) fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Runs `work` on one of the threads and its parallel loops on all of them. The other threads may sleep between
    /// loops.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.install(work)
    }

    /// Runs `work` as [`install`](Self::install) does, and keeps all threads awake until it is done. A thread without
    /// work yields to the machine's other threads.
    pub(crate) fn run_pass<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let (not_started, over) = (&AtomicUsize::new(self.threads() - 1), &AtomicBool::new(false));
        self.0.scope(|scope| {
            let own = rayon::current_thread_index();
            scope.spawn_broadcast(move |_, context| {
                if Some(context.index()) == own {
                    return;
                }
                not_started.fetch_sub(1, Ordering::AcqRel);
                let mut backoff = Backoff::default();
                while !over.load(Ordering::Acquire) {
                    if rayon::yield_now() == Some(Yield::Executed) {
                        backoff = Backoff::default();
                    } else {
                        backoff.wait();
                    }
                }
            });
            let _guard = PassGuard(over);
            // Wait until all threads are in their loops: a thread that starts its loop later might do so inside a task
            // of `work`, and would never finish that task.
            let mut backoff = Backoff::default();
            while not_started.load(Ordering::Acquire) > 0 {
                backoff.wait();
            }
            work()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use rayon::prelude::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(threads, "test".to_owned()).unwrap()
    }

    #[test]
    fn a_pass_runs_parallel_loops_and_returns_its_result() {
        for threads in [1, 2, 5] {
            let pool = pool(threads);
            for pass in 0..200 {
                let sums = pool.run_pass(|| {
                    let one = (0..100u64).into_par_iter().map(|i| (0..i).into_par_iter().sum::<u64>()).sum::<u64>();
                    let two = (0..pass).into_par_iter().sum::<u64>();
                    (one, two)
                });
                assert_eq!(sums, (161_700, (0..pass).sum()));
            }
        }
    }

    #[test]
    fn a_pass_that_panics_ends_and_the_next_one_runs() {
        let pool = pool(3);
        for _ in 0..20 {
            let failed = catch_unwind(AssertUnwindSafe(|| pool.run_pass(|| panic!("a fault"))));
            assert!(failed.is_err());
            let inside = || pool.run_pass(|| (0..50).into_par_iter().for_each(|i| assert!(i != 20)));
            assert!(catch_unwind(AssertUnwindSafe(inside)).is_err());
            assert_eq!(pool.run_pass(|| (0..10).into_par_iter().sum::<i32>()), 45);
        }
    }
}
