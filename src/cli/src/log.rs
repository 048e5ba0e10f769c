//! The log: lines on stderr, written by a thread of their own, so that a slow reader does not delay requests.

use std::io::{Result as IoResult, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::error::Error;

/// Maximum number of lines that wait to be written. Further lines are lost.
const MAX_WAITING: usize = 16_384;
/// Maximum time for writing the queued lines at exit.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// Time between two attempts to queue the end while the queue is full.
const POLL_TIME: Duration = Duration::from_millis(10);

/// A message to the log's thread.
enum Message {
    Line(Vec<u8>),
    End,
}

/// The writing end of the log.
#[derive(Clone)]
pub(crate) struct LogWriter(SyncSender<Message>);

/// A guard that, when dropped, waits up to [`FLUSH_TIME`] for the queued lines to be written.
pub(crate) struct FlushGuard {
    sender: SyncSender<Message>,
    done: Receiver<()>,
}

/// Starts the log's thread.
pub(crate) fn start() -> Result<(LogWriter, FlushGuard), Error> {
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let (finished, done) = sync_channel(1);
    let write_all = move || {
        while let Ok(Message::Line(line)) = receiver.recv() {
            // A line that cannot be written is lost, as on a full disk; the next ones may fit.
            let _ = std::io::stderr().write_all(&line);
        }
        let _ = finished.send(());
    };
    thread::Builder::new().name("log".to_owned()).spawn(write_all).map_err(Error::LogThread)?;
    Ok((LogWriter(sender.clone()), FlushGuard { sender, done }))
}

impl Write for LogWriter {
    /// Queues the bytes, which are a whole line.
    fn write(&mut self, line: &[u8]) -> IoResult<usize> {
        let _ = self.0.try_send(Message::Line(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> IoResult<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        let end = Instant::now() + FLUSH_TIME;
        while self.sender.try_send(Message::End).is_err() {
            if Instant::now() >= end {
                return;
            }
            thread::sleep(POLL_TIME);
        }
        let _ = self.done.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}
