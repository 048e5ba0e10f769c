//! `Pool`: the compute threads, which look for work during a forward pass, and parallel loops on them.
//!
//! A pass is about a hundred parallel loops, each followed by a single-threaded step. rayon's threads fall asleep in
//! such a step, and waking them takes a tenth of the time of a small model's pass.
//!
//! At the end of a loop, rayon's threads yield their cores. The thread that gets the core, for example one that parses a
//! request, may keep it for milliseconds, whatever its priority. A thread that wakes up gets its core back at once. So
//! the loops of this module wait without rayon: they spin, then sleep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rayon::Yield;

use crate::load_error::LoadError;

/// Number of times that a thread without work looks for some before it sleeps. Most waits are shorter.
const SPIN_ROUNDS: u32 = 1000;

/// The time for which a waiting thread sleeps. The system may round it up to some 50 microseconds.
const SLEEP: Duration = Duration::from_micros(1);

/// Number of parts per thread into which a loop divides its items, so that the threads end at about the same time.
const PARTS_PER_THREAD: usize = 16;

/// Number of spins at the end of a loop, until rayon has recorded that the other threads are done. Otherwise, it would
/// yield the core.
const END_ROUNDS: u32 = 8;

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
            thread::sleep(SLEEP);
        }
    }
}

/// A guard that counts a thread as busy with a loop until it is dropped, even if the loop panics.
struct BusyGuard<'a>(&'a AtomicUsize);

impl<'a> BusyGuard<'a> {
    fn new(busy: &'a AtomicUsize) -> Self {
        busy.fetch_add(1, Ordering::AcqRel);
        Self(busy)
    }
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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

    /// Runs `work` as [`install`](Self::install) does. All threads look for work until it is done.
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

/// Runs `run` once for each item, on all threads of the current pool.
pub(crate) fn for_each<T: Send>(items: impl Iterator<Item = T>, run: impl Fn(T) + Sync) {
    let items: Vec<Mutex<Option<T>>> = items.map(|item| Mutex::new(Some(item))).collect();
    let threads = rayon::current_num_threads();
    let part = (items.len() / (threads * PARTS_PER_THREAD)).max(1);
    let (next, busy) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
    let work = || {
        let _busy = BusyGuard::new(busy);
        while let Some(rest) = items.get(next.fetch_add(part, Ordering::Relaxed)..).filter(|rest| !rest.is_empty()) {
            for item in &rest[..rest.len().min(part)] {
                let item = item.lock().unwrap_or_else(PoisonError::into_inner).take();
                item.into_iter().for_each(&run);
            }
        }
    };
    if threads == 1 || items.len() <= 1 {
        return work();
    }
    rayon::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(|_| work());
        }
        work();
        let mut backoff = Backoff::default();
        while busy.load(Ordering::Acquire) > 0 {
            backoff.wait();
        }
        for _ in 0..END_ROUNDS {
            std::hint::spin_loop();
        }
    });
}

/// Runs `run` once for each item, as [`for_each`] does; returns the results in the order of the items.
pub(crate) fn map<T: Send, R: Send>(items: impl ExactSizeIterator<Item = T>, run: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = (0..items.len()).map(|_| None).collect();
    for_each(items.zip(&mut results), |(item, result)| *result = Some(run(item)));
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(threads, "test".to_owned()).unwrap()
    }

    #[test]
    fn a_pass_runs_parallel_loops_and_returns_its_result() {
        for threads in [1, 2, 5] {
            let pool = pool(threads);
            for pass in 0..200 {
                let sums = pool.run_pass(|| {
                    let one = map(0..100_usize, |i| map(0..i, |j| j).into_iter().sum::<usize>());
                    let two = map(0..pass, |i| i);
                    (one.into_iter().sum::<usize>(), two.into_iter().sum::<usize>())
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
            let inside = || pool.run_pass(|| for_each(0..50, |i| assert!(i != 20)));
            assert!(catch_unwind(AssertUnwindSafe(inside)).is_err());
            assert_eq!(pool.run_pass(|| map(0..10, |i| i)), (0..10).collect::<Vec<_>>());
        }
    }
}
