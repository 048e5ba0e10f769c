//! The threads that compute a pass: all of them are awake from its beginning to its end.
//!
//! A pass is some hundred parallel loops with a step of one thread between two. rayon's threads fall asleep in such a step, and
//! what wakes them costs a small model's pass a tenth of its time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rayon::Yield;

use super::LoadError;

/// A pool of threads.
#[derive(Debug)]
pub(crate) struct Pool(rayon::ThreadPool);

/// Says when it is dropped that a pass is over: also one that panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Pool {
    /// So many threads, of that name and a number; 0 means one a core.
    pub(crate) fn new(threads: usize, name: String) -> Result<Self, LoadError> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder.thread_name(move |i| format!("{name}-{i}")).build();
        pool.map(Self).map_err(|error| LoadError::Threads(error.to_string()))
    }

    pub(crate) fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Runs `work` on one of the threads, whose parallel loops are shared by all; the others may sleep between two of them.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.install(work)
    }

    /// As [`install`](Self::install), but none of them sleeps until `work` is done. Whoever finds nothing to do lets the machine's
    /// other threads run.
    pub(crate) fn pass<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let (asleep, over) = (&AtomicUsize::new(self.threads() - 1), &AtomicBool::new(false));
        self.0.scope(|scope| {
            let own = rayon::current_thread_index();
            scope.spawn_broadcast(move |_, context| {
                if Some(context.index()) == own {
                    return;
                }
                asleep.fetch_sub(1, Ordering::AcqRel);
                while !over.load(Ordering::Acquire) {
                    if rayon::yield_now() != Some(Yield::Executed) {
                        thread::yield_now();
                    }
                }
            });
            let _over = Over(over);
            // One that came late might begin to wait for work inside of a part of it, and never finish that.
            while asleep.load(Ordering::Acquire) > 0 {
                thread::yield_now();
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
    fn a_pass_shares_its_loops_and_returns_what_it_made() {
        for threads in [1, 2, 5] {
            let pool = pool(threads);
            for pass in 0..200 {
                let sums = pool.pass(|| {
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
            let failed = catch_unwind(AssertUnwindSafe(|| pool.pass(|| panic!("a fault"))));
            assert!(failed.is_err());
            let inside = || pool.pass(|| (0..50).into_par_iter().for_each(|i| assert!(i != 20)));
            assert!(catch_unwind(AssertUnwindSafe(inside)).is_err());
            assert_eq!(pool.pass(|| (0..10).into_par_iter().sum::<i32>()), 45);
        }
    }
}
