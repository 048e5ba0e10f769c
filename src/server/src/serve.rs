//! `serve`: listens until shutdown, then finishes the requests in flight.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::serve::{Listener, ListenerExt};
use tokio::net::TcpListener;

use crate::app::App;
use crate::routes::router;
use crate::transport::tls::Tls;

/// The maximum time for which connections stay open after the last request, so that clients can read their responses.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves `app` until `shutdown` completes, and returns once the requests in flight are answered.
///
/// Once shutdown begins, the server answers `/ready` and new work with 503. It still accepts connections until no
/// request is in flight, so that every client gets a response.
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
/// An error from the listener.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY failed; small responses may be delayed");
        }
    });
    run(listener, app, shutdown).await
}

/// Serves `app` as [`serve`] does, but encrypts every connection with TLS.
///
/// # Errors
/// An error from the listener.
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
    let spans = app.telemetry.spans.clone();
    let graceful_shutdown = {
        let drain = drain.clone();
        async move {
            shutdown.await;
            tracing::info!("shutting down");
            drain.begin();
            drain.finished().await;
        }
    };
    let linger_timeout = async {
        drain.finished().await;
        tokio::time::sleep(LINGER_TIMEOUT).await;
    };
    let served = tokio::select! {
        served = axum::serve(listener, router(app)).with_graceful_shutdown(graceful_shutdown) => served,
        () = linger_timeout => {
            tracing::warn!(timeout = ?LINGER_TIMEOUT, "connections still open; stopping");
            Ok(())
        }
    };
    // Connection tasks may outlive this function and hold the app, so flushing the spans when the app is dropped would
    // be too late.
    #[cfg(feature = "otlp")]
    if let Some(spans) = spans {
        tokio::task::spawn_blocking(move || spans.flush()).await.map_err(io::Error::other)?;
    }
    served
}
