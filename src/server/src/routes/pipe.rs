//! A pipe from the task that writes a response to the connection that sends it.
//!
//! The task reserves memory before it makes the next part of the response, so a slow client slows the task down, and
//! all responses together take limited memory. A part counts until the socket has taken it. The pipe has no time limit:
//! the connection ends if its client reads too slowly (`transport::pace`), which closes the pipe.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::{Mutex as FifoMutex, Notify};

use crate::app::App;
use crate::limits::admission::Permit;

/// The number of unsent bytes at which a pipe accepts no more reservations.
const MAX_UNSENT_BYTES: usize = 128 * 1024;

/// The maximum memory for the parts of a pipe that are being made, in bytes. A part that needs more is made alone.
const MAX_RESERVED_MEMORY: usize = 256 * 1024;

/// The maximum number of bytes that the connection gets at a time. It looks for the end of the response in between.
const MAX_SLICE_BYTES: usize = 128 * 1024;

/// The error at the end of a response that cannot be completed.
#[derive(Debug, thiserror::Error)]
#[error("the response cannot be completed")]
struct BrokenPipe;

/// The writing end of a pipe.
pub(super) struct PipeWriter {
    app: App,
    account: u64,
    /// Held while a reservation waits. Only one of a response's many tasks waits for the state to change.
    turn: FifoMutex<()>,
    shared: Arc<Shared>,
}

/// The reading end of a pipe. Dropping it closes the pipe.
struct PipeReader(Arc<Shared>);

/// Memory for the next part of a response, which is being made.
pub(super) struct Reservation<'a> {
    pipe: &'a PipeWriter,
    memory: usize,
    permit: Option<Permit>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is more to read.
    readable: Notify,
    /// Notified when the socket has taken a part, a reservation ends, or the client has disconnected.
    writable: Notify,
}

#[derive(Default)]
struct State {
    parts: VecDeque<Bytes>,
    /// Number of bytes of the parts that the socket has not taken, including those in the connection's buffer.
    unsent_bytes: usize,
    /// Memory for parts that are being made, in bytes.
    reserved_memory: usize,
    status: Status,
}

/// A part of a response. It is dropped once the socket has taken all of it, and counts against the server's limit until
/// then.
struct Part {
    bytes: Vec<u8>,
    shared: Arc<Shared>,
    _permit: Option<Permit>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Status {
    #[default]
    Open,
    /// The whole response has been written.
    Finished,
    /// The response cannot be completed.
    Broken,
    /// The client has disconnected.
    Closed,
}

/// Creates a pipe for a response to a client with this account. Returns the writing end, and the body.
pub(super) fn pipe(app: App, account: u64) -> (PipeWriter, Body) {
    let shared = Arc::<Shared>::default();
    let reader = PipeReader(Arc::clone(&shared));
    // A compressor polls the body again after its end, and `unfold` would panic then.
    let parts = unfold(reader, |reader| async move { Some((reader.next().await?, reader)) }).fuse();
    (PipeWriter { app, account, turn: FifoMutex::default(), shared }, Body::from_stream(parts))
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.shared.lock().unsent_bytes -= self.bytes.len();
        self.shared.writable.notify_waiters();
    }
}

impl Shared {
    /// Locks the state. Every update leaves it consistent, so a panic while the lock is held does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pipe and discards everything in it.
    fn end(&self, status: Status) {
        let mut state = self.lock();
        if matches!(state.status, Status::Open | Status::Finished) {
            state.status = status;
        }
        let discarded = std::mem::take(&mut state.parts);
        drop(state);
        // A part locks the state when it is dropped.
        drop(discarded);
        self.readable.notify_one();
        self.writable.notify_waiters();
    }
}

impl PipeWriter {
    /// Reserves memory for the next part, in bytes, in the order of the calls. Waits until most of the earlier parts
    /// are sent, and for the server's limit.
    pub(super) async fn reserve(&self, memory: usize) -> Reservation<'_> {
        let turn = self.turn.lock().await;
        self.wait_until(|state| {
            let fits = state.status == Status::Open
                && state.unsent_bytes < MAX_UNSENT_BYTES
                && (state.reserved_memory == 0 || state.reserved_memory.saturating_add(memory) <= MAX_RESERVED_MEMORY);
            if fits {
                state.reserved_memory += memory;
            }
            fits
        })
        .await;
        drop(turn);
        let mut reservation = Reservation { pipe: self, memory, permit: None };
        reservation.permit = Some(self.app.admission.reserve_response(self.account, memory).await);
        reservation
    }

    /// Sends a part as soon as there is capacity.
    pub(super) async fn send(&self, bytes: Vec<u8>) {
        self.reserve(bytes.len()).await.send(bytes);
    }

    /// Sends a part at once.
    pub(super) fn push(&self, bytes: Vec<u8>, mut permit: Option<Permit>) {
        let mut state = self.shared.lock();
        if state.status != Status::Open || bytes.is_empty() {
            return;
        }
        state.unsent_bytes += bytes.len();
        if let Some(permit) = &mut permit {
            permit.resize(bytes.capacity());
        }
        let part = Part { bytes, shared: Arc::clone(&self.shared), _permit: permit };
        state.parts.push_back(Bytes::from_owner(part));
        drop(state);
        self.shared.readable.notify_one();
    }

    /// Sends the last part, and waits until the socket has taken everything, or the client has disconnected.
    pub(super) async fn finish(&self, last: Vec<u8>) {
        self.push(last, None);
        {
            let mut state = self.shared.lock();
            if state.status == Status::Open {
                state.status = Status::Finished;
            }
        }
        self.shared.readable.notify_one();
        self.wait_until(|state| state.unsent_bytes == 0).await;
    }

    /// Ends a response that cannot be completed, so that the client sees an error.
    pub(super) fn break_off(&self) {
        self.shared.end(Status::Broken);
    }

    /// Waits until the client has disconnected.
    pub(super) async fn closed(&self) {
        self.wait_until(|state| state.status == Status::Closed).await;
    }

    /// Returns `true` if the socket has not taken everything that was sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.shared.lock().unsent_bytes > 0
    }

    async fn wait_until(&self, mut condition: impl FnMut(&mut State) -> bool) {
        loop {
            let changed = self.shared.writable.notified();
            if condition(&mut self.shared.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for PipeWriter {
    /// Ends a response whose task has panicked.
    fn drop(&mut self) {
        if self.shared.lock().status == Status::Open {
            self.break_off();
        }
    }
}

impl Reservation<'_> {
    /// Sends the part for which the memory was reserved.
    pub(super) fn send(mut self, bytes: Vec<u8>) {
        self.pipe.push(bytes, self.permit.take());
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.pipe.shared.lock().reserved_memory -= self.memory;
        self.pipe.shared.writable.notify_waiters();
    }
}

impl PipeReader {
    /// Returns the next slice of the parts, or an error if the pipe broke.
    async fn next(&self) -> Option<Result<Bytes, BrokenPipe>> {
        loop {
            let more = self.0.readable.notified();
            if let Some(next) = self.take() {
                return next;
            }
            more.await;
        }
    }

    /// Takes the next slice of the parts; returns `None` if there is nothing to read yet, and `Some(None)` at the end.
    fn take(&self) -> Option<Option<Result<Bytes, BrokenPipe>>> {
        let mut state = self.0.lock();
        if let Some(part) = state.parts.front_mut() {
            let slice = part.split_to(part.len().min(MAX_SLICE_BYTES));
            if part.is_empty() {
                state.parts.pop_front();
            }
            return Some(Some(Ok(slice)));
        }
        match state.status {
            Status::Open => None,
            Status::Finished | Status::Closed => Some(None),
            Status::Broken => {
                state.status = Status::Closed;
                Some(Some(Err(BrokenPipe)))
            }
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.0.end(Status::Closed);
    }
}
