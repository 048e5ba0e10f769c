//! The HTTP client: the server under load, the connections to it, and its dialect.
//!
//! Start reading at [`Target`], which asks a server for its model. `Connection` sends one request at a time; `dialect`
//! writes request bodies and reads responses; [`Counters`] come from the server's `/metrics`.

mod connection;
mod counters;
mod dialect;
mod endpoint;
mod target;

pub(crate) use connection::{Connection, ExchangeError, Response, expect_success};
pub use counters::Counters;
pub(crate) use dialect::{CompleteResponse, max_response_bytes, read_response, write_body};
pub use endpoint::Endpoint;
pub use target::Target;
