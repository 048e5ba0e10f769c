//! Limits: their configuration, clients, admission, and draining at shutdown.
//!
//! Start with `admission`, which admits or rejects each request. `pressure` determines when a rejected client should
//! retry.

pub(crate) mod admission;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod drain;
mod pressure;
