//! Disposal of values with many allocations: freeing them on a thread that serves connections would delay others.

use std::ops::{Deref, DerefMut};
use std::vec::IntoIter;

use surprisal_engine::Scores;
use tokio::runtime::Handle;

use super::background;

/// The maximum number of allocations that are freed on the current thread.
const MAX_INLINE: usize = 512;

/// A value that may have many allocations.
pub(crate) trait Bulky: Send + 'static {
    /// Returns the approximate number of allocations.
    fn allocations(&self) -> usize;
}

impl<T: Bulky> Bulky for Vec<T> {
    fn allocations(&self) -> usize {
        count(self)
    }
}

impl<T: Bulky> Bulky for IntoIter<T> {
    fn allocations(&self) -> usize {
        count(self.as_slice())
    }
}

impl<T: Bulky> Bulky for (usize, T) {
    fn allocations(&self) -> usize {
        self.1.allocations()
    }
}

impl Bulky for Scores {
    fn allocations(&self) -> usize {
        1 + self.positions.len()
    }
}

/// Counts the allocations of items, until there are too many for the current thread.
fn count<T: Bulky>(items: &[T]) -> usize {
    let mut total = 1_usize;
    for item in items {
        total = total.saturating_add(item.allocations());
        if total > MAX_INLINE {
            break;
        }
    }
    total
}

/// A value that a blocking thread frees if it has many allocations.
#[derive(Debug, Default)]
pub(crate) struct Disposed<T: Bulky + Default>(T);

impl<T: Bulky + Default> Disposed<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value, whose owner then frees it.
    pub(crate) fn into_inner(mut self) -> T {
        std::mem::take(&mut self.0)
    }
}

impl<T: Bulky + Default> Deref for Disposed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Bulky + Default> DerefMut for Disposed<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Bulky + Default> Drop for Disposed<T> {
    fn drop(&mut self) {
        let allocations = self.0.allocations();
        dispose(std::mem::take(&mut self.0), allocations);
    }
}

/// Frees a value with this number of allocations: on a blocking thread if there are many, and a runtime to run it.
pub(crate) fn dispose(value: impl Send + 'static, allocations: usize) {
    if allocations > MAX_INLINE
        && let Ok(runtime) = Handle::try_current()
    {
        background::spawn(&runtime, move || drop(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread::{self, ThreadId};

    use super::*;

    /// A value that reports the thread that frees it.
    struct Reporter(Sender<ThreadId>);

    impl Drop for Reporter {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    impl Bulky for Reporter {
        fn allocations(&self) -> usize {
            1
        }
    }

    #[tokio::test]
    async fn another_thread_frees_many_allocations() {
        let here = thread::current().id();
        for (length, is_here) in [(1, true), (2 * MAX_INLINE, false)] {
            let (sender, receiver) = channel();
            drop(Disposed::new((0..length).map(|_| Reporter(sender.clone())).collect::<Vec<_>>()));
            drop(sender);
            let threads: Vec<ThreadId> = receiver.iter().collect();
            assert!(threads.len() == length && threads.iter().all(|&thread| (thread == here) == is_here), "{length}");
        }
    }
}
