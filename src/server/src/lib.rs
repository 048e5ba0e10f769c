//! The HTTP server: routes, admission, metrics.
//!
//! A request of `POST /logprobs` goes one way: `admission` finds it a place, `body` reads and parses it, `prepare` checks it
//! and makes token sequences of it, `admission` bounds the tokens in flight, the [`Scorer`](surprisal_engine::Scorer) scores,
//! and the answer stands in the order asked, or as NDJSON in the order they finish. `/v1/completions` and `/generate` put the
//! same question in other servers' shapes. [`ApiKeys`] says who may ask. Whatever goes wrong is an RFC 9457 problem that names
//! the query, the field, the value and the limit.

mod admission;
mod app;
mod auth;
mod body;
mod client;
mod config;
mod drain;
#[cfg(feature = "otlp")]
mod export;
mod metrics;
mod observe;
mod openapi;
mod prepare;
mod pressure;
mod problem;
mod routes;
mod serve;
mod tls;
mod trace;

pub use app::{App, TextCodec};
pub use auth::ApiKeys;
pub use config::ServerConfig;
#[cfg(feature = "otlp")]
pub use export::{ExportError, SpanExport};
pub use routes::router;
pub use serve::{serve, serve_tls};
pub use tls::{Tls, TlsError};
