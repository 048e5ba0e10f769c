//! Limits: their configuration, connections, clients, admission, turns, and draining at shutdown.
//!
//! Start with `admission`, which admits or rejects each request. `pressure` determines when a rejected client should
//! retry. `connections` limits connections, which come before any request. `turns` orders the work of parsing,
//! tokenizing and writing.

pub(crate) mod admission;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod connections;
pub(crate) mod descriptors;
pub(crate) mod drain;
mod pressure;
pub(crate) mod throttle;
pub(crate) mod turns;
