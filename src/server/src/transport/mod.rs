//! What a request passes on its way in: TLS, API keys, and the reading of its body.
//!
//! `serve`, which listens, stands above the routes and therefore outside this folder.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod tls;
