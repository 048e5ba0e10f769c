//! `Connection`: a stream between the client and hyper that enforces time limits.
//!
//! A head must arrive within `head_seconds`, the next request within `idle_seconds`. The client must read a response at
//! a minimum rate. The connection passes hyper no byte after the end of a head or a body whose length is known, so it
//! sees every head from its first byte, and notices a client that disconnects during its request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::exchange::{Awaited, Exchange, Stage, TimeLimit};
use super::half_close::HalfClose;
use super::head::HeadScanner;
use super::pace::Pace;
use super::socket::Socket;
use crate::limits::config::ServerConfig;

/// The maximum time for which the server discards the rest of a request after the last response. A socket that is
/// closed with unread bytes is reset, and its client might lose the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);

/// A client's connection as hyper sees it.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    exchange: Arc<Exchange>,
    head_timeout: Duration,
    idle_timeout: Duration,
    scanner: HeadScanner,
    /// Bytes that arrived together with the end of a head or a body.
    ahead: Vec<u8>,
    /// Deadline of the current head.
    deadline: Pin<Box<Sleep>>,
    write_pace: Pace,
    /// `true` if bytes were written since the last flush.
    is_unflushed: bool,
    /// The stage at the last flush, and the time at which it began.
    flushed_stage: Option<(Stage, Instant)>,
    half_close: Option<HalfClose>,
    /// End of the lingering close, once it has begun.
    linger_end: Option<Pin<Box<Sleep>>>,
}

impl<S: Socket> Connection<S> {
    pub(crate) fn new(stream: S, exchange: Arc<Exchange>, config: &ServerConfig) -> Self {
        let idle_timeout = config.idle_timeout();
        Self {
            stream,
            exchange,
            head_timeout: config.head_timeout(),
            idle_timeout,
            scanner: HeadScanner::default(),
            ahead: Vec::new(),
            deadline: Box::pin(sleep(idle_timeout)),
            write_pace: Pace::of_response(config),
            is_unflushed: false,
            flushed_stage: None,
            half_close: None,
            linger_end: None,
        }
    }

    /// Moves at most `limit` of the bytes that arrived early into `buffer`.
    fn take_ahead(&mut self, buffer: &mut ReadBuf<'_>, limit: usize) {
        let count = self.ahead.len().min(limit);
        buffer.put_slice(&self.ahead[..count]);
        self.ahead.drain(..count);
    }

    /// Reads a head, or a part of one.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        stage: Stage,
        since: Instant,
    ) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        if self.ahead.is_empty() {
            match Pin::new(&mut self.stream).poll_read(cx, buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => return self.poll_deadline(cx, stage, since).map(Err),
            }
        } else {
            self.take_ahead(buffer, buffer.remaining());
        }
        let arrived = &buffer.filled()[start..];
        if arrived.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.exchange.begin_head();
        if let Some(end) = self.scanner.scan(arrived) {
            self.ahead.splice(..0, arrived[end.length..].iter().copied());
            buffer.set_filled(start + end.length);
            self.exchange.end_head(end.has_bare_lf);
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the deadline of a head. Returns the error for a head that is late.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, stage: Stage, since: Instant) -> Poll<io::Error> {
        let (timeout, exceeded) = match stage {
            Stage::Idle => (self.idle_timeout, TimeLimit::Idle),
            _ => (self.head_timeout, TimeLimit::Head),
        };
        if self.deadline.deadline() != since + timeout {
            self.deadline.set(sleep_until(since + timeout));
        }
        self.deadline.as_mut().poll(cx).map(|()| self.time_out(exceeded))
    }

    /// Records the limit that ends the connection. Returns the error for hyper.
    fn time_out(&self, exceeded: TimeLimit) -> io::Error {
        self.exchange.exceed(exceeded);
        io::ErrorKind::TimedOut.into()
    }

    /// Reads a part of a body of which `left` bytes are left, if that is known.
    fn poll_body(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>, left: Option<u64>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        let left = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        if !self.ahead.is_empty() {
            self.take_ahead(buffer, left.min(buffer.remaining()));
        } else if left >= buffer.remaining() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(left));
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
        }
        self.exchange.receive_body(buffer.filled().len() - start);
        Poll::Ready(Ok(()))
    }

    /// Waits for the end of the connection while a response is due. Reading no byte is the end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.half_close.is_none() {
            if !self.ahead.is_empty() {
                // The client has sent the next request already.
                return Poll::Pending;
            }
            let mut bytes = [0; 512];
            let mut early = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut early))?;
            if !early.filled().is_empty() {
                self.ahead.extend_from_slice(early.filled());
                return Poll::Pending;
            }
        }
        let stage = self.exchange.stage();
        // hyper may hold a stream's head that has not been sent. Nothing may precede it.
        let is_flushed = !self.is_unflushed && (stage.0 != Stage::Stream || self.flushed_stage == Some(stage));
        let half_close = self.half_close.get_or_insert_with(HalfClose::new);
        half_close.poll_gone(cx, &mut self.stream, &self.exchange, is_flushed)
    }

    /// Passes on the result of a write, or fails if the client reads too slowly.
    fn poll_paced<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() && self.write_pace.poll_too_slow(cx).is_ready() {
            return Poll::Ready(Err(self.time_out(TimeLimit::Write)));
        }
        written
    }

    fn poll_written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.write_pace.record(bytes);
            self.is_unflushed = true;
            if let Some(half_close) = &mut self.half_close {
                half_close.restart();
            }
        }
        self.poll_paced(cx, written)
    }

    /// Discards what the client is still sending, until it closes the connection or the time is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.linger_end.get_or_insert_with(|| Box::pin(sleep(LINGER_TIMEOUT)));
        let mut bytes = [0; 8192];
        while end.as_mut().poll(cx).is_pending() {
            let mut rest = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: Socket> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.exchange.awaited() {
            Awaited::Head(stage, since) => this.poll_head(cx, buffer, stage, since),
            Awaited::Body(left) => this.poll_body(cx, buffer, left),
            Awaited::Nothing => this.poll_end(cx),
        }
    }
}

impl<S: Socket> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.poll_written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Flushes the stream. hyper flushes once it has written everything, so the rate is not measured afterwards.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        ready!(this.poll_paced(cx, flushed))?;
        this.write_pace.finish();
        this.is_unflushed = false;
        this.flushed_stage = Some(this.exchange.stage());
        this.exchange.flush();
        if !this.ahead.is_empty() {
            // hyper does not read again by itself, and no bytes arrive that would wake it.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Closes the connection. If the client may still be sending, discards that for a while first.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger_end.is_none() {
            let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.poll_paced(cx, shut))?;
            if !this.exchange.is_receiving() && this.ahead.is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.exchange.close();
        }
        this.poll_linger(cx).map(Ok)
    }
}
