//! `Exchange`: the progress of a connection's current request and response.
//!
//! hyper parses requests and writes responses, but does not show how far it is. The connection's I/O
//! (`transport::connection`) sees its bytes, and its service (`serve::service`) sees its requests and responses; both
//! record their part here. The connection limit reads it too: it closes only connections without a request.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, Version, header};
use tokio::time::Instant;

use crate::limits::admission::ResponsePermit;
use crate::limits::connections::Activity;

/// The progress of a connection's current exchange.
#[derive(Debug)]
pub(crate) struct Exchange(Mutex<Progress>);

/// A stage of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No byte of a request has arrived since the last response.
    Idle,
    /// A part of a request's head has arrived.
    Head,
    /// A request is being read or processed, and has no response yet.
    Request,
    /// A response is being written.
    Response,
    /// A response is being written in chunks, which are computed meanwhile.
    Stream,
    /// The end of a response waits to be sent.
    Flush,
    /// The last response has been written, and the client may still be sending.
    Closing,
}

/// The bytes for which the server waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// A request's head, in this stage since this time.
    Head(Stage, Instant),
    /// The rest of a request's body, and its length if it is known.
    Body(Option<u64>),
    /// None before the response is written.
    Nothing,
}

/// A defect of a request's head that hyper tolerates, but the server rejects. A request carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadDefect {
    BareLf,
    /// No `Host`, or several.
    Host,
    /// A head that arrived before the end of the previous request's chunked body was known.
    Pipelined,
}

/// A time limit that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeLimit {
    Head,
    Idle,
    Write,
}

#[derive(Debug)]
struct Progress {
    stage: Stage,
    /// Time at which the stage began.
    since: Instant,
    /// Number of bytes of the request's body that have not arrived; `None` if the length is unknown.
    body_left: Option<u64>,
    /// The head that the I/O has passed on: whether it has a bare LF. `None` if there is none.
    head: Option<bool>,
    /// `true` if the client understands interim responses.
    allows_interim: bool,
    /// The limit that ended the connection.
    exceeded: Option<TimeLimit>,
    /// The permit for the bytes of the response, until they are sent.
    permit: Option<ResponsePermit>,
}

impl Default for Exchange {
    fn default() -> Self {
        let (stage, since) = (Stage::Idle, Instant::now());
        let (allows_interim, exceeded, permit) = (false, None, None);
        Self(Mutex::new(Progress { stage, since, body_left: Some(0), head: None, allows_interim, exceeded, permit }))
    }
}

impl Exchange {
    /// Returns the stage, and the time at which it began.
    pub(crate) fn stage(&self) -> (Stage, Instant) {
        let progress = self.lock();
        (progress.stage, progress.since)
    }

    /// Returns `true` if the client understands interim responses, as of HTTP/1.1.
    pub(crate) fn allows_interim(&self) -> bool {
        self.lock().allows_interim
    }

    /// Returns the bytes for which the server waits.
    pub(crate) fn awaited(&self) -> Awaited {
        let Progress { stage, since, body_left, .. } = *self.lock();
        match (body_left, stage) {
            (Some(0), Stage::Idle | Stage::Head) => Awaited::Head(stage, since),
            (Some(0), _) => Awaited::Nothing,
            _ => Awaited::Body(body_left),
        }
    }

    /// Returns `true` if the client is in the middle of sending a request.
    pub(crate) fn is_receiving(&self) -> bool {
        let progress = self.lock();
        progress.body_left != Some(0) || progress.stage == Stage::Head
    }

    /// Records that a part of a head has arrived.
    pub(super) fn begin_head(&self) {
        let mut progress = self.lock();
        if progress.stage == Stage::Idle {
            progress.enter(Stage::Head);
        }
    }

    /// Records that a whole head has arrived.
    pub(super) fn end_head(&self, has_bare_lf: bool) {
        self.lock().head = Some(has_bare_lf);
    }

    /// Records that this many bytes of a body have arrived.
    pub(super) fn receive_body(&self, bytes: usize) {
        let mut progress = self.lock();
        progress.body_left = progress.body_left.map(|left| left.saturating_sub(bytes as u64));
    }

    /// Records a request, with the length of its body if that is known. Returns the defect of its head, if any.
    pub(crate) fn begin_request(
        &self,
        version: Version,
        headers: &HeaderMap,
        body_length: Option<u64>,
    ) -> Option<HeadDefect> {
        let mut progress = self.lock();
        progress.enter(Stage::Request);
        progress.body_left = body_length;
        progress.allows_interim = version >= Version::HTTP_11;
        match progress.head.take() {
            None => Some(HeadDefect::Pipelined),
            Some(true) => Some(HeadDefect::BareLf),
            Some(false) if version >= Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 => {
                Some(HeadDefect::Host)
            }
            Some(false) => None,
        }
    }

    /// Records the end of the request's body.
    pub(crate) fn end_body(&self) {
        self.lock().body_left = Some(0);
    }

    /// Records that a response begins, and holds its permit until it is sent. Returns `true` if the whole request has
    /// arrived.
    pub(crate) fn begin_response(&self, is_stream: bool, permit: Option<ResponsePermit>) -> bool {
        let mut progress = self.lock();
        progress.permit = permit;
        progress.enter(if is_stream { Stage::Stream } else { Stage::Response });
        progress.body_left == Some(0)
    }

    /// Records the end of the response, of which a part may still wait to be sent.
    pub(crate) fn end_response(&self) {
        self.lock().enter(Stage::Flush);
    }

    /// Records that nothing waits to be sent.
    pub(super) fn flush(&self) {
        let mut progress = self.lock();
        if progress.stage == Stage::Flush {
            progress.enter(Stage::Idle);
            progress.permit = None;
        }
    }

    /// Records the limit that ends the connection.
    pub(super) fn exceed(&self, limit: TimeLimit) {
        self.lock().exceeded = Some(limit);
    }

    /// Returns the limit that ended the connection, if one did.
    pub(crate) fn exceeded(&self) -> Option<TimeLimit> {
        self.lock().exceeded
    }

    /// Records that the server closes the connection.
    pub(super) fn close(&self) {
        self.lock().enter(Stage::Closing);
    }

    /// Locks the progress. Every update leaves it consistent, so a panic while the lock is held does no harm.
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity for Exchange {
    fn idle_since(&self) -> Option<Instant> {
        let (stage, since) = self.stage();
        matches!(stage, Stage::Idle | Stage::Head | Stage::Closing).then_some(since)
    }
}

impl HeadDefect {
    /// Returns the defect in words, and what to send instead.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::BareLf => "a line of the request's head ends with LF; end lines with CR LF",
            Self::Host => "an HTTP/1.1 request must have exactly one `Host` header",
            Self::Pipelined => {
                "the request was sent before the response to a request with a chunked body; wait for that response"
            }
        }
    }
}

impl Progress {
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.since = Instant::now();
    }
}
