//! `HalfClose`: distinguishes a client that only stopped sending from one that disconnected.
//!
//! After its request, a client may close its side of the connection and still read the response, as `nc -N` does. A
//! client that disconnects looks the same: both send a FIN. Only the answer to a byte shows the difference, so the
//! server sends bytes that mean nothing. Before the response, these are `100 Continue`, which a client of HTTP/1.1 must
//! ignore. Between two chunks of a response, it is a leading zero of the next chunk's size. A client that is gone
//! answers with a reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::exchange::{Exchange, Stage};
use super::socket::Socket;

/// The probe before a response.
const INTERIM_RESPONSE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The probe between two chunks of a response.
const LEADING_ZERO: &[u8] = b"0";

/// The maximum number of leading zeros of a chunk's size. Some clients accept at most 16 digits, of which 8 suffice for
/// the size itself.
const MAX_LEADING_ZEROS: u32 = 8;

/// The time from the FIN, or from the last byte of the response, to the first probe. Most responses are written
/// earlier.
const FIRST_PROBE: Duration = Duration::from_millis(200);

/// The maximum time between two probes; it doubles from the first on.
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// The time to wait for bytes of the response to a client of HTTP/1.0, which cannot be probed.
const UNPROBED: Duration = Duration::from_secs(5);

/// A connection whose client has stopped sending.
#[derive(Debug)]
pub(super) struct HalfClose {
    /// Time of the FIN, or of the last byte of the response.
    since: Instant,
    interval: Duration,
    next: Pin<Box<Sleep>>,
    leading_zeros: u32,
}

impl HalfClose {
    pub(super) fn new() -> Self {
        let (since, next) = (Instant::now(), Box::pin(sleep(FIRST_PROBE)));
        Self { since, interval: FIRST_PROBE, next, leading_zeros: 0 }
    }

    /// Records that a part of the response was written, which also probes the client.
    pub(super) fn restart(&mut self) {
        self.since = Instant::now();
        (self.interval, self.leading_zeros) = (FIRST_PROBE, 0);
        self.next.as_mut().reset(self.since + FIRST_PROBE);
    }

    /// Waits until the connection fails, or until a client that cannot be probed counts as gone. `is_flushed` states
    /// that everything written so far has been sent.
    pub(super) fn poll_gone<S: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        exchange: &Exchange,
        is_flushed: bool,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(error) = stream.take_error()? {
                return Poll::Ready(Err(error));
            }
            ready!(self.next.as_mut().poll(cx));
            let probe = match exchange.stage().0 {
                Stage::Request => Some(INTERIM_RESPONSE),
                Stage::Stream => Some(LEADING_ZERO),
                _ => None,
            };
            if let Some(probe) = probe.filter(|_| is_flushed) {
                if !exchange.allows_interim() && self.since.elapsed() >= UNPROBED {
                    return Poll::Ready(Ok(()));
                }
                if exchange.allows_interim() && self.leading_zeros < MAX_LEADING_ZEROS {
                    ready!(write_probe(cx, stream, probe))?;
                    self.leading_zeros += u32::from(probe == LEADING_ZERO);
                }
            }
            self.schedule(exchange.allows_interim());
        }
    }

    /// Sets the time of the next probe, or of the next check of a client that cannot be probed.
    fn schedule(&mut self, is_probed: bool) {
        self.interval = (self.interval * 2).min(MAX_INTERVAL);
        let end = self.since + UNPROBED;
        let next = Instant::now() + self.interval;
        self.next.as_mut().reset(if !is_probed && self.since.elapsed() < UNPROBED { next.min(end) } else { next });
    }
}

fn write_probe<S: Socket>(cx: &mut Context<'_>, stream: &mut S, probe: &[u8]) -> Poll<io::Result<()>> {
    let written = ready!(Pin::new(&mut *stream).poll_write(cx, probe))?;
    if written < probe.len() {
        // No unsent byte is left from earlier, so a socket that takes less than this is broken.
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    // With TLS, a part may remain unwritten. The next write of the response continues it.
    let _ = Pin::new(stream).poll_flush(cx)?;
    Poll::Ready(Ok(()))
}
