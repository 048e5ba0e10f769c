//! The inbound path of a request: TLS, API keys, and reading the body.
//!
//! Start with `body`, which reads a request, and `json`, which parses it. `auth` checks its API key, and `tls` decrypts its connection.
//!
//! `serve`, which listens, imports the routes and is therefore outside this folder.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod json;
pub(crate) mod tls;
