//! The inbound path of a request: the connection, TLS, API keys, and reading the body.
//!
//! Start with `connection`, which passes a client's bytes to hyper within time limits: `exchange` records what it
//! waits for, `head` finds the ends of heads, `pace` is a minimum rate, `half_close` notices clients that are gone,
//! `socket` is the connection itself, and `tls` encrypts it. Then `auth` checks the API key, `body` reads the request,
//! and `json` parses it.
//!
//! `serve`, which listens, imports the routes and is therefore outside this folder.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod connection;
mod decoder;
pub(crate) mod exchange;
mod half_close;
mod head;
pub(crate) mod json;
pub(crate) mod outline;
pub(crate) mod pace;
pub(crate) mod socket;
pub(crate) mod tls;
