//! `QueryEvents`: the events of a query that generates, and the cancellation of queries for which nobody waits.

use std::fmt;

use tokio::sync::mpsc;

use crate::scorer::answer::{QueryEvent, ScoreError};

/// The events of a query that generates, as they happen. They end after the first error, or after the token that has a
/// [`FinishReason`](crate::FinishReason). Dropping this value cancels the query.
#[derive(Debug)]
pub struct QueryEvents {
    events: mpsc::Receiver<Result<QueryEvent, ScoreError>>,
    guard: Option<CancelGuard>,
}

impl QueryEvents {
    /// Creates the events of a query that the guard cancels.
    pub(crate) fn new(events: mpsc::Receiver<Result<QueryEvent, ScoreError>>, guard: CancelGuard) -> Self {
        Self { events, guard: Some(guard) }
    }

    /// Waits for the next event; returns `None` after the end.
    pub async fn recv(&mut self) -> Option<Result<QueryEvent, ScoreError>> {
        self.events.recv().await
    }

    /// Cancels the query. Events that have happened can still be received.
    pub fn close(&mut self) {
        self.events.close();
        self.guard = None;
    }
}

/// For scorers that detect by themselves that the receiver is closed.
impl From<mpsc::Receiver<Result<QueryEvent, ScoreError>>> for QueryEvents {
    fn from(events: mpsc::Receiver<Result<QueryEvent, ScoreError>>) -> Self {
        Self { events, guard: None }
    }
}

/// A guard that cancels a query when it is dropped, unless the query has ended.
pub(crate) struct CancelGuard(Option<Box<dyn FnOnce() + Send + Sync>>);

impl CancelGuard {
    /// Creates a guard that calls `cancel` when it is dropped.
    pub(crate) fn new(cancel: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(cancel)))
    }

    /// Keeps the guard from cancelling the query, which has ended.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel();
        }
    }
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelGuard")
    }
}
