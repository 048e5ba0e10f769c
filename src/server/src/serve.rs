//! `serve`: listens until it is told to stop, then finishes what it has begun.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::serve::{Listener, ListenerExt};
use tokio::net::TcpListener;

use crate::{App, Tls, router};

/// How long connections may stay open when all work is done: time to read the last answer.
const LINGER: Duration = Duration::from_secs(30);

/// Serves `app` until `shutdown` completes, and returns when the requests in flight are answered.
///
/// From the moment of shutdown `/ready` and new work are answered with 503; connections are still taken, so that whoever
/// asks gets an answer, until no request is being worked on.
///
/// ```no_run
/// # async fn run(app: surprisal_server::App) -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
/// let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// surprisal_server::serve(listener, app, shutdown).await
/// # }
/// ```
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "small answers may be late: no TCP_NODELAY");
        }
    });
    run(listener, app, shutdown).await
}

/// As [`serve`], with every connection encrypted.
///
/// # Errors
/// The listener failed.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Tls,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    run(tls.listen(listener), app, shutdown).await
}

async fn run<L>(listener: L, app: App, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()>
where
    L: Listener,
    L::Addr: Debug,
{
    tracing::info!(address = ?listener.local_addr()?, model = app.model().id, "listening");
    let drain = app.drain.clone();
    #[cfg(feature = "otlp")]
    let spans = app.spans.clone();
    let drained = {
        let drain = drain.clone();
        async move {
            shutdown.await;
            tracing::info!("shutting down");
            drain.begin();
            drain.finished().await;
        }
    };
    let lingered = async {
        drain.finished().await;
        tokio::time::sleep(LINGER).await;
    };
    let served = tokio::select! {
        served = axum::serve(listener, router(app)).with_graceful_shutdown(drained) => served,
        () = lingered => {
            tracing::warn!("connections were still open {LINGER:?} after the last answer");
            Ok(())
        }
    };
    // Connections' tasks may keep the app a moment longer than this returns, or until the process ends.
    #[cfg(feature = "otlp")]
    if let Some(spans) = spans {
        tokio::task::spawn_blocking(move || spans.flush()).await.map_err(io::Error::other)?;
    }
    served
}
