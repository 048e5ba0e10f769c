//! `SubmissionWindow`: the limit on the queries of one request that are in the engine at once.
//!
//! A request may have tens of thousands of queries. If it submitted all of them, the engine would have to queue them,
//! and to cancel them when the client disconnects, while other clients wait. A window submits the next query when an
//! earlier one ends. The engine still finds enough queries to fill its batches.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::disposal::{Bulky, Disposed};

/// The maximum number of queries of one request that are in the engine at once: twice the greatest `max_running` of the
/// presets in `configs`.
const MAX_SUBMITTED: usize = 2048;

/// The maximum time for submitting queries before the task yields.
const MAX_SUBMIT_TIME: Duration = Duration::from_micros(500);

/// The queries of a request, which are submitted in order, and of which at most [`MAX_SUBMITTED`] are pending. Dropping
/// the window cancels those.
pub(crate) struct SubmissionWindow<S, F> {
    submit: S,
    /// Numbers of the queries that have not been submitted.
    remaining: Range<usize>,
    pending: FuturesUnordered<F>,
}

impl<S: FnMut(usize) -> F, F: Future> SubmissionWindow<S, F> {
    /// Creates a window for this number of queries. `submit` submits the query with a number; its future waits for the
    /// result.
    pub(crate) fn new(count: usize, submit: S) -> Self {
        Self { submit, remaining: 0..count, pending: FuturesUnordered::new() }
    }

    /// Submits as many queries as the window permits, and waits for the next result of any of them. Returns `None`
    /// after the last result.
    pub(crate) async fn next(&mut self) -> Option<F::Output> {
        let mut start = Instant::now();
        while self.pending.len() < MAX_SUBMITTED
            && let Some(number) = self.remaining.next()
        {
            self.pending.push((self.submit)(number));
            if start.elapsed() >= MAX_SUBMIT_TIME {
                tokio::task::yield_now().await;
                start = Instant::now();
            }
        }
        self.pending.next().await
    }
}

/// The results of numbered queries, which arrive in any order. The list grows with the results, so that waiting queries
/// take no memory.
pub(crate) struct NumberedResults<T: Bulky>(Disposed<Vec<(usize, T)>>);

impl<T: Bulky> Default for NumberedResults<T> {
    fn default() -> Self {
        Self(Disposed::default())
    }
}

impl<T: Bulky + Default> NumberedResults<T> {
    pub(crate) fn insert(&mut self, number: usize, result: T) {
        while self.0.len() <= number {
            let next = self.0.len();
            self.0.push((next, T::default()));
        }
        self.0[number].1 = result;
    }

    /// Returns the results with their numbers, in order. All of them must have arrived.
    pub(crate) fn into_list(self) -> Vec<(usize, T)> {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::sync::oneshot;

    use super::*;

    impl Bulky for usize {
        fn allocations(&self) -> usize {
            0
        }
    }

    /// Queries that the test ends.
    #[derive(Default)]
    struct Submissions(RefCell<Vec<Option<oneshot::Sender<()>>>>);

    impl Submissions {
        fn submit(&self, number: usize) -> impl Future<Output = usize> + use<> {
            let (sender, receiver) = oneshot::channel();
            let mut submissions = self.0.borrow_mut();
            assert_eq!(submissions.len(), number, "queries are submitted in order");
            submissions.push(Some(sender));
            async move {
                receiver.await.unwrap();
                number
            }
        }

        fn begun(&self) -> usize {
            self.0.borrow().len()
        }

        fn end(&self, number: usize) {
            self.0.borrow_mut()[number].take().unwrap().send(()).unwrap();
        }
    }

    /// Lets the other future run until it can make no progress.
    async fn settle() {
        for _ in 0..4 * MAX_SUBMITTED {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_query_is_submitted_when_an_earlier_one_ends() {
        let (submissions, count) = (Submissions::default(), 2 * MAX_SUBMITTED + 10);
        let end = async {
            settle().await;
            assert_eq!(submissions.begun(), MAX_SUBMITTED);
            for number in (0..MAX_SUBMITTED).rev() {
                submissions.end(number);
            }
            settle().await;
            assert_eq!(submissions.begun(), 2 * MAX_SUBMITTED);
            submissions.end(MAX_SUBMITTED + 5);
            settle().await;
            assert_eq!(submissions.begun(), 2 * MAX_SUBMITTED + 1);
            for number in (MAX_SUBMITTED..count).filter(|&number| number != MAX_SUBMITTED + 5) {
                if submissions.begun() <= number {
                    settle().await;
                }
                submissions.end(number);
            }
        };
        let run = async {
            let mut window = SubmissionWindow::new(count, |number| submissions.submit(number));
            let mut results = NumberedResults::default();
            while let Some(number) = window.next().await {
                results.insert(number, number);
            }
            results.into_list()
        };
        let (results, ()) = tokio::join!(run, end);
        assert_eq!(results, (0..count).map(|number| (number, number)).collect::<Vec<_>>());
    }
}
