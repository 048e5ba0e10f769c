//! `Acceptor`: accepts connections within a limit, and serves them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use super::service::Service;
use crate::limits::config::ServerConfig;
use crate::limits::connections::{Activity, ConnectionSlot, Connections};
use crate::limits::throttle::LogThrottle;
use crate::telemetry::metrics::Metrics;
use crate::transport::connection::Connection;
use crate::transport::exchange::{Exchange, TimeLimit};
use crate::transport::socket::{self, Socket};
use crate::transport::tls::Tls;

/// The pause after a failure to accept, so that the server does not spin while it has no free descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// The maximum size of a request's head, in bytes. Admission does not count heads, so without this limit clients could
/// exhaust memory with large heads that never end.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// The maximum number of bytes that hyper buffers per connection and direction.
const MAX_BUFFERED_BYTES: usize = 64 << 10;

/// The state that all connections of a listener share.
pub(super) struct Endpoint {
    pub(super) routes: Router,
    pub(super) tls: Option<Tls>,
    pub(super) config: Arc<ServerConfig>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connections: Connections,
    /// Maximum number of connections.
    pub(super) limit: usize,
    /// The time until which connections may stay open, once they may serve no further request.
    pub(super) closing: watch::Receiver<Option<Instant>>,
    pub(super) timed_out: LogThrottle,
}

impl Endpoint {
    /// Counts and logs a connection that a time limit ended.
    fn record_timeout(&self, reason: &str) {
        self.metrics.count_closed_connections(reason, 1);
        if let Some(closed) = self.timed_out.count(1) {
            tracing::info!(closed, latest = reason, "connections timed out");
        }
    }
}

/// A listener's connections.
pub(super) struct Acceptor {
    endpoint: Arc<Endpoint>,
    tasks: JoinSet<()>,
    at_limit: LogThrottle,
    failed: LogThrottle,
}

impl Acceptor {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let (at_limit, failed) = (LogThrottle::default(), LogThrottle::default());
        Self { endpoint: Arc::new(endpoint), tasks: JoinSet::new(), at_limit, failed }
    }

    /// Accepts and serves connections until the endpoint closes, and returns once all of them are closed.
    pub(super) async fn run(mut self, listener: TcpListener) {
        let mut closing = self.endpoint.closing.clone();
        let end = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => self.admit(stream, address).await,
                    Err(error) => self.recover(&error).await,
                },
                Some(done) = self.tasks.join_next() => log_panic(done),
                end = closed(&mut closing) => break end,
            }
        };
        drop(listener);
        let all_closed = async { while self.tasks.join_next().await.is_some() {} };
        if timeout_at(end, all_closed).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections still open; closing them");
            self.tasks.shutdown().await;
        }
    }

    /// Serves a new connection. At the limit, closes other connections to admit it, or closes it.
    async fn admit(&mut self, stream: TcpStream, address: SocketAddr) {
        let Endpoint { connections, limit, metrics, .. } = &*self.endpoint;
        if connections.count() >= *limit {
            let displaced = connections.displaced_by(address.ip(), *limit);
            let (reason, closed) = if displaced.is_empty() { ("rejected", 1) } else { ("displaced", displaced.len()) };
            metrics.count_closed_connections(reason, closed);
            if let Some(closed) = self.at_limit.count(closed) {
                tracing::warn!(limit, closed, latest = reason, %address, "connection limit reached");
            }
            if displaced.is_empty() {
                return;
            }
            for task in displaced {
                task.abort();
            }
            while connections.count() >= *limit
                && let Some(done) = self.tasks.join_next().await
            {
                log_panic(done);
            }
        }
        socket::set_options(&stream);
        let exchange = Arc::new(Exchange::default());
        let slot = connections.open(address.ip(), Arc::clone(&exchange) as _);
        let id = slot.id();
        let task = self.tasks.spawn(serve_connection(stream, Arc::clone(&self.endpoint), exchange, slot));
        connections.set_task(id, task);
    }

    /// Logs a failure to accept, and pauses if it was not the client's.
    async fn recover(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        if let Some(failures) = self.failed.count(1) {
            tracing::error!(%error, failures, "accepting a connection failed; retrying");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn log_panic(done: Result<(), JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        tracing::error!(%error, "connection task panicked");
    }
}

/// Serves one connection until it closes. Encrypts it if the endpoint has a certificate.
async fn serve_connection(stream: TcpStream, endpoint: Arc<Endpoint>, exchange: Arc<Exchange>, _slot: ConnectionSlot) {
    let Some(tls) = &endpoint.tls else { return serve_http(stream, &endpoint, exchange).await };
    let mut closing = endpoint.closing.clone();
    let handshake = tokio::select! {
        handshake = timeout(endpoint.config.head_timeout(), tls.acceptor().accept(stream)) => handshake,
        _ = closed(&mut closing) => return,
    };
    match handshake {
        Ok(Ok(stream)) => serve_http(stream, &endpoint, exchange).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => endpoint.record_timeout("handshake-timeout"),
    }
}

async fn serve_http<S: Socket>(stream: S, endpoint: &Endpoint, exchange: Arc<Exchange>) {
    let Endpoint { config, routes, .. } = endpoint;
    let connection = Connection::new(stream, Arc::clone(&exchange), config);
    let service = Service::new(routes.clone(), Arc::clone(&exchange), Arc::clone(config));
    let mut builder = http1::Builder::new();
    // `Connection` distinguishes idle connections from slow heads. hyper's own timeout, the sum, also makes it look for
    // the next request after each response.
    builder
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFERED_BYTES)
        .timer(TokioTimer::new())
        .header_read_timeout(config.idle_timeout() + config.head_timeout());
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(connection), service));
    let mut closing = endpoint.closing.clone();
    let served = tokio::select! {
        served = connection.as_mut() => served,
        _ = closed(&mut closing) => {
            if exchange.idle_since().is_some() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Some(limit) = exchange.exceeded() {
        let reason = match limit {
            TimeLimit::Head => "head-timeout",
            TimeLimit::Idle => "idle-timeout",
            TimeLimit::Write => "write-timeout",
        };
        endpoint.record_timeout(reason);
    }
    if let Err(error) = served {
        tracing::debug!(%error, "connection failed");
    }
}

/// Waits until connections may serve no further request. Returns the time until which they may stay open.
async fn closed(closing: &mut watch::Receiver<Option<Instant>>) -> Instant {
    // This fails only if the sender is dropped, which ends the server.
    closing.wait_for(Option::is_some).await.ok().and_then(|end| *end).unwrap_or_else(Instant::now)
}
