//! The signals that stop a server, or make it reload files.

use tokio::task::JoinHandle;

use crate::output::print_status;

/// A stream of the process's SIGHUP signals. While it exists, SIGHUP does not end the process.
#[cfg(unix)]
pub(crate) struct Hangups(std::io::Result<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Hangups {
    pub(crate) fn new() -> Self {
        let signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        if let Err(error) = &signals {
            tracing::warn!(%error, "cannot handle SIGHUP; keys and certificates are read only at the start");
        }
        Self(signals)
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            Ok(signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    }
}

/// A stream that never yields: this system has no SIGHUP.
#[cfg(not(unix))]
pub(crate) struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    pub(crate) fn new() -> Self {
        Self
    }

    /// Never returns.
    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}

/// Ends the process as soon as the signals arrive. Dropping the engine instead would wait for its forward pass, or for
/// a model that is being reloaded.
pub(crate) fn exit_on(signals: impl Future<Output = ()> + Send + 'static, message: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        signals.await;
        print_status(message);
        std::process::exit(0);
    })
}

/// Resolves after this number of SIGTERM and Ctrl-C signals. Signals count from the call on, even before the future is
/// awaited.
#[cfg(unix)]
pub(crate) fn stop_signals(count: usize) -> impl Future<Output = ()> {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    async fn received(signal: &mut std::io::Result<Signal>) {
        match signal {
            Ok(signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    }
    let [mut interrupt, mut terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        for _ in 0..count {
            tokio::select! {
                () = received(&mut interrupt) => {}
                () = received(&mut terminate) => {}
            }
        }
    }
}

/// Resolves after this number of Ctrl-C signals.
#[cfg(not(unix))]
pub(crate) fn stop_signals(count: usize) -> impl Future<Output = ()> {
    async move {
        for _ in 0..count {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
