//! The messages and the state that the handle and the engine's thread share.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::scheduling::QueryId;
use crate::scorer::{Generation, Query, QueryEvent, ScoreError, Scores, Stats};

/// The state that the engine's thread writes and its handle reads.
#[derive(Debug, Default)]
pub(crate) struct SharedState {
    pub(crate) stats: Mutex<Stats>,
    pub(crate) alive: AtomicBool,
}

impl SharedState {
    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message to the engine's thread.
pub(crate) enum Message {
    Submit(Submission),
    /// Nobody waits for the answer of this query anymore. The query may have ended.
    Cancel(QueryId),
}

impl Message {
    /// Rejects a submission; ignores other messages.
    pub(crate) fn reject(self, error: ScoreError) {
        if let Message::Submit(submission) = self {
            submission.responder.fail(error);
        }
    }
}

/// A query sent to the engine's thread.
pub(crate) struct Submission {
    pub(crate) id: QueryId,
    pub(crate) query: Query,
    /// The continuation; `None` if the query is only scored.
    pub(crate) generation: Option<Generation>,
    pub(crate) responder: Responder,
}

/// The channel for a query's answer.
pub(crate) enum Responder {
    /// A channel for the scores only.
    Scores(oneshot::Sender<Result<Scores, ScoreError>>),
    /// A channel for every event as it happens, with capacity for all of them.
    Events(mpsc::Sender<Result<QueryEvent, ScoreError>>),
}

impl Responder {
    /// Returns whether more events follow this one.
    pub(crate) fn expects_more_after(&self, event: &Result<QueryEvent, ScoreError>) -> bool {
        match (self, event) {
            (Responder::Events(..), Ok(QueryEvent::Scores(_))) => true,
            (_, Ok(QueryEvent::Token(token))) => token.finish_reason.is_none(),
            _ => false,
        }
    }

    /// Sends an event that is not the last; drops it if the receiver is gone.
    pub(crate) fn send(&self, event: Result<QueryEvent, ScoreError>) {
        if let Responder::Events(sender) = self {
            let _ = sender.try_send(event);
        }
    }

    /// Sends the last event.
    pub(crate) fn finish(self, event: Result<QueryEvent, ScoreError>) {
        match (self, event) {
            (Responder::Scores(sender), Ok(QueryEvent::Scores(scores))) => drop(sender.send(Ok(scores))),
            (Responder::Scores(sender), Err(error)) => drop(sender.send(Err(error))),
            (Responder::Scores(_), Ok(QueryEvent::Token(_))) => {}
            (Responder::Events(sender), event) => drop(sender.try_send(event)),
        }
    }

    /// Sends an error as the last event.
    pub(crate) fn fail(self, error: ScoreError) {
        self.finish(Err(error));
    }
}
