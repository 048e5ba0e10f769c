//! `serve`: listens until shutdown, then finishes the requests in flight.
//!
//! Start with [`Listeners::serve`]. `acceptor` accepts connections and serves them, and `service` passes their requests
//! to the routes.

mod acceptor;
mod service;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::acceptor::{Acceptor, Endpoint};
use crate::app::App;
use crate::limits::config::ServerConfig;
use crate::limits::connections::Connections;
use crate::limits::descriptors;
use crate::limits::throttle::LogThrottle;
use crate::routes::{admin_router, router};
use crate::transport::tls::Tls;

/// The maximum time for which connections stay open after the last request, so that clients can read their responses.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum number of connections of the admin listener.
const ADMIN_CONNECTIONS: usize = 16;

/// The maximum time without a request on a connection of the admin listener, in seconds.
const ADMIN_IDLE_SECONDS: u64 = 15;

/// The sockets on which a server listens.
#[derive(Debug)]
pub struct Listeners {
    data: TcpListener,
    tls: Option<Tls>,
    admin: Option<TcpListener>,
}

impl Listeners {
    /// Serves all routes on this socket.
    pub fn new(data: TcpListener) -> Self {
        Self { data, tls: None, admin: None }
    }

    /// Encrypts the connections with TLS, except those of the admin socket.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Also serves `/health`, `/ready`, `/ping` and `/metrics` on this socket. It has connections of its own, so that
    /// it responds even if clients use up the connection limit.
    #[must_use]
    pub fn with_admin(mut self, admin: TcpListener) -> Self {
        self.admin = Some(admin);
        self
    }

    /// Serves `app` until `shutdown` completes, and returns once the requests in flight are answered, at the latest
    /// [`drain_seconds`](ServerConfig::drain_seconds) later.
    ///
    /// Once shutdown begins, the server answers `/ready` and new work with 503. It still accepts connections until no
    /// request is in flight, so that every client gets a response.
    ///
    /// # Errors
    /// The data socket has no local address, or the task that exports the last spans panicked. The server logs a
    /// failure to accept a connection and retries.
    pub async fn serve(self, app: App, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { data, tls, admin } = self;
        tracing::info!(address = %data.local_addr()?, model = app.model().id, "listening");
        let (close, closing) = watch::channel(None);
        #[cfg(feature = "otlp")]
        let spans = app.telemetry.spans.clone();
        let others = admin.as_ref().map_or(0, |_| ADMIN_CONNECTIONS);
        let limit = descriptors::connection_limit(app.config.max_connections, others + app.reserved_files);
        let endpoint = Endpoint {
            routes: router(app.clone()),
            tls,
            config: Arc::clone(&app.config),
            metrics: Arc::clone(&app.telemetry.metrics),
            connections: app.connections.clone(),
            limit,
            closing: closing.clone(),
            timed_out: LogThrottle::default(),
        };
        let serve_data = Acceptor::new(endpoint).run(data);
        let serve_admin = serve_admin(admin, &app, closing);
        let stop = async {
            shutdown.await;
            close.send_replace(Some(drain(&app).await));
        };
        tokio::join!(serve_data, serve_admin, stop);
        // Work that outlives its client may hold the app, so flushing the spans when the app is dropped would be too
        // late.
        #[cfg(feature = "otlp")]
        if let Some(spans) = spans {
            tokio::task::spawn_blocking(move || spans.flush()).await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Serves the routes for operators on a socket of their own, if there is one.
async fn serve_admin(listener: Option<TcpListener>, app: &App, closing: watch::Receiver<Option<Instant>>) {
    let Some(listener) = listener else { return };
    let config = ServerConfig { idle_seconds: ADMIN_IDLE_SECONDS, ..(*app.config).clone() };
    let endpoint = Endpoint {
        routes: admin_router(app.clone()),
        tls: None,
        config: Arc::new(config),
        metrics: Arc::clone(&app.telemetry.metrics),
        connections: Connections::default(),
        limit: ADMIN_CONNECTIONS,
        closing,
        timed_out: LogThrottle::default(),
    };
    Acceptor::new(endpoint).run(listener).await;
}

/// Waits for the requests in flight. Returns the time until which connections may stay open.
async fn drain(app: &App) -> Instant {
    tracing::info!(requests = app.admission.requests(), "shutting down");
    app.drain.begin();
    let end = Instant::now() + app.config.drain_timeout();
    if timeout_at(end, app.drain.finished()).await.is_err() {
        tracing::warn!(
            requests = app.admission.requests(),
            seconds = app.config.drain_seconds,
            "requests still in flight; dropping them"
        );
    }
    end.min(Instant::now() + CLOSE_TIMEOUT)
}

/// Serves `app` until `shutdown` completes, as [`Listeners::serve`] does.
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
/// As for [`Listeners::serve`].
pub async fn serve(listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    Listeners::new(listener).serve(app, shutdown).await
}

/// Serves `app` as [`serve`] does, but encrypts every connection with TLS.
///
/// # Errors
/// As for [`Listeners::serve`].
pub async fn serve_tls(
    listener: TcpListener,
    tls: Tls,
    app: App,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    Listeners::new(listener).with_tls(tls).serve(app, shutdown).await
}
