//! Admission: a bound on the tokens of all requests in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{self, Failure};

/// Tokens that may be in flight. Clones share the bound.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    limit: u32,
    room: Arc<Semaphore>,
}

/// A request's tokens in flight, until dropped.
pub(crate) type Permit = OwnedSemaphorePermit;

impl Admission {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, room: Arc::new(Semaphore::new(limit as usize)) }
    }

    /// Tokens in flight.
    pub(crate) fn held(&self) -> u32 {
        self.limit.saturating_sub(u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX))
    }

    /// A request that could never fit is told to be split.
    pub(crate) fn check(&self, tokens: usize) -> Result<u32, Failure> {
        match u32::try_from(tokens) {
            Ok(tokens) if tokens <= self.limit => Ok(tokens),
            _ => Err(problem::request_too_large(tokens, self.limit)),
        }
    }

    /// Takes room for a request now, or not at all: waiting is the client's part.
    pub(crate) fn admit(&self, tokens: u32) -> Result<Permit, Failure> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(tokens);
        room.map_err(|_| problem::overloaded(tokens, self.held(), self.limit))
    }
}
