//! A pipe from the task that writes a response to the connection that sends it.
//!
//! The task reserves capacity before it makes the next part of the response, so a slow client slows the task down, and
//! all responses together take limited memory. If the client takes nothing for `max_unread_seconds`, the pipe breaks:
//! it discards the rest of the response, and the connection ends with an error.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::app::App;
use crate::limits::admission::Permit;
use crate::problem::{self, Failure};

/// The maximum number of bytes that wait in a pipe. A larger part waits alone.
const BUFFER_BYTES: usize = 256 * 1024;

/// The maximum number of bytes that the connection takes at a time.
const SLICE_BYTES: usize = 64 * 1024;

/// The maximum time for which a client may leave a response unread while the server shuts down.
const SHUTDOWN_UNREAD: Duration = Duration::from_secs(5);

/// The error at the end of a response that its client did not read in time.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read the response in time")]
pub(super) struct BrokenPipe;

/// The writing end of a pipe.
pub(super) struct PipeWriter {
    app: App,
    account: u64,
    shared: Arc<Shared>,
}

/// The reading end of a pipe. Dropping it closes the pipe.
struct PipeReader(Arc<Shared>);

/// Capacity in a pipe for the next part of a response.
pub(super) struct Room<'a> {
    pipe: &'a PipeWriter,
    bytes: usize,
    permit: Option<Permit>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is more to read.
    readable: Notify,
    /// Notified when the client has taken something, or has disconnected.
    writable: Notify,
}

struct State {
    chunks: VecDeque<Chunk>,
    /// Number of bytes that the client has not taken.
    unread: usize,
    /// Number of bytes that are reserved for parts that are being made.
    reserved: usize,
    /// Number of bytes of the slice that the connection is sending.
    lent: usize,
    /// Time at which the client last took something, or at which there was something to take again.
    progress: Instant,
    status: Status,
}

/// A part of a response, which counts against the server's limit until it is sent.
struct Chunk {
    rest: Bytes,
    _permit: Option<Permit>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Open,
    /// The whole response has been written.
    Finished,
    /// The client read nothing for too long, or the response cannot be completed.
    Broken,
    /// The client has disconnected.
    Closed,
}

impl Default for State {
    fn default() -> Self {
        let (chunks, progress) = (VecDeque::new(), Instant::now());
        Self { chunks, unread: 0, reserved: 0, lent: 0, progress, status: Status::Open }
    }
}

/// Creates a pipe for a response to a client with this account. Returns the writing end, and the body.
pub(super) fn pipe(app: App, account: u64) -> (PipeWriter, impl Stream<Item = Result<Bytes, BrokenPipe>> + Send) {
    let shared = Arc::<Shared>::default();
    let reader = PipeReader(Arc::clone(&shared));
    let body = unfold(reader, |reader| async move { Some((reader.next().await?, reader)) });
    (PipeWriter { app, account, shared }, body)
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
        state.chunks.clear();
        (state.unread, state.lent) = (0, 0);
        drop(state);
        self.readable.notify_one();
        self.writable.notify_waiters();
    }
}

impl PipeWriter {
    /// Waits for capacity for a part of about this many bytes. Fails if the client reads nothing for too long.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Room<'_>, Failure> {
        let fits = |state: &mut State| {
            let taken = state.unread + state.reserved;
            let fits = state.status == Status::Open && (taken == 0 || taken.saturating_add(bytes) <= BUFFER_BYTES);
            state.reserved += if fits { bytes } else { 0 };
            fits
        };
        self.wait_until(fits).await?;
        let mut room = Room { pipe: self, bytes, permit: None };
        room.permit = Some(self.app.admission.reserve_response(self.account, bytes).await);
        Ok(room)
    }

    /// Sends a part as soon as there is capacity.
    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), Failure> {
        self.reserve(bytes.len()).await?.send(bytes);
        Ok(())
    }

    /// Sends a part at once.
    pub(super) fn push(&self, bytes: Vec<u8>, permit: Option<Permit>) {
        let mut state = self.shared.lock();
        if state.status != Status::Open || bytes.is_empty() {
            return;
        }
        if state.unread == 0 {
            state.progress = Instant::now();
        }
        state.unread += bytes.len();
        state.chunks.push_back(Chunk { rest: bytes.into(), _permit: permit });
        drop(state);
        self.shared.readable.notify_one();
    }

    /// Sends the last part, and waits until the client has taken everything, or has disconnected.
    pub(super) async fn finish(&self, last: Vec<u8>) -> Result<(), Failure> {
        self.push(last, None);
        {
            let mut state = self.shared.lock();
            if state.status == Status::Open {
                state.status = Status::Finished;
            }
        }
        self.shared.readable.notify_one();
        self.wait_until(|state| state.unread == 0).await
    }

    /// Ends a response that cannot be completed, so that the client sees an error.
    pub(super) fn break_off(&self) {
        self.shared.end(Status::Broken);
    }

    /// Waits until the client has disconnected.
    pub(super) async fn closed(&self) {
        loop {
            let changed = self.shared.writable.notified();
            if self.shared.lock().status == Status::Closed {
                return;
            }
            changed.await;
        }
    }

    /// Returns `true` if the client has not taken everything that was sent.
    pub(super) fn has_unread(&self) -> bool {
        self.shared.lock().unread > 0
    }

    /// Waits for a condition. Breaks the pipe and fails if the client takes nothing for too long, although there is
    /// something to take.
    async fn wait_until(&self, mut condition: impl FnMut(&mut State) -> bool) -> Result<(), Failure> {
        loop {
            let changed = self.shared.writable.notified();
            let unread_since = {
                let mut state = self.shared.lock();
                if condition(&mut state) {
                    return Ok(());
                }
                (state.unread > 0).then_some(state.progress)
            };
            let Some(progress) = unread_since else {
                changed.await;
                continue;
            };
            let configured = self.app.config.unread_timeout();
            let is_draining = self.app.drain.is_draining();
            let limit = if is_draining { configured.min(SHUTDOWN_UNREAD) } else { configured };
            tokio::select! {
                () = changed => {}
                () = self.app.drain.begun(), if !is_draining => {}
                () = sleep_until(progress + limit) => {
                    if self.shared.lock().progress == progress {
                        self.break_off();
                        return Err(problem::response_unread(limit.as_secs()));
                    }
                }
            }
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

impl Room<'_> {
    /// Sends the part for which the capacity was reserved.
    pub(super) fn send(mut self, bytes: Vec<u8>) {
        let mut permit = self.permit.take();
        if let Some(permit) = &mut permit {
            permit.shrink(bytes.len());
        }
        self.pipe.push(bytes, permit);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.pipe.shared.lock().reserved -= self.bytes;
        self.pipe.shared.writable.notify_waiters();
    }
}

impl PipeReader {
    /// Returns the next slice, or an error if the pipe broke. The connection asks for a slice once it has sent the
    /// previous one, except for what its buffer holds.
    async fn next(&self) -> Option<Result<Bytes, BrokenPipe>> {
        self.confirm();
        loop {
            let more = self.0.readable.notified();
            if let Some(next) = self.take() {
                return next;
            }
            more.await;
        }
    }

    /// Records that the previous slice was sent.
    fn confirm(&self) {
        let mut state = self.0.lock();
        if state.lent == 0 {
            return;
        }
        state.unread -= state.lent;
        (state.lent, state.progress) = (0, Instant::now());
        if state.chunks.front().is_some_and(|chunk| chunk.rest.is_empty()) {
            state.chunks.pop_front();
        }
        drop(state);
        self.0.writable.notify_waiters();
    }

    /// Takes the next slice; returns `None` if there is nothing to read yet, and `Some(None)` at the end.
    fn take(&self) -> Option<Option<Result<Bytes, BrokenPipe>>> {
        let mut state = self.0.lock();
        if let Some(chunk) = state.chunks.front_mut() {
            // A copy, so that a slice in the connection's buffer does not keep the memory of a whole part.
            let slice = Bytes::copy_from_slice(&chunk.rest.split_to(chunk.rest.len().min(SLICE_BYTES)));
            state.lent = slice.len();
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
