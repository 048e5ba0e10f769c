//! The HTTP server: routes, admission and metrics.
//!
//! A `POST /logprobs` request takes this path. `routes::gate` identifies the client and admits the request,
//! `transport` reads and parses it, `routes::logprobs::prepare` checks it and builds token sequences,
//! `limits::admission` admits the tokens, and the [`Scorer`](surprisal_engine::Scorer) scores them. The response has
//! the results in the order of the request, or as NDJSON in the order in which they finish. `/v1/completions` and
//! `/generate` use the formats of other servers. [`ApiKeys`] determines which clients may send work. Every failure is
//! an RFC 9457 problem that names the query, the field, the value and the limit.
//!
//! Start reading at [`router`]. Modules import only from modules earlier in this order: `failure`, `problem` and
//! `codec`; `token_texts`; `limits`; `telemetry` and `transport`; `app`; `input`; `generation`; `openapi`; `routes`;
//! `serve`.

mod app;
mod codec;
mod failure;
mod generation;
mod input;
mod limits;
mod openapi;
mod problem;
mod routes;
mod serve;
mod telemetry;
mod token_texts;
mod transport;

pub use app::App;
pub use codec::TextCodec;
pub use limits::config::ServerConfig;
pub use routes::router;
pub use serve::{Listeners, serve, serve_tls};
#[cfg(feature = "otlp")]
pub use telemetry::export::{ExportError, SpanExport};
pub use transport::auth::{ApiKeys, KeyRing};
pub use transport::tls::{Tls, TlsError};
