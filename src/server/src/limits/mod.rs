//! Limits: their configuration, connections, clients, admission, turns, disposal, and draining at shutdown.
//!
//! Start with `admission`, which admits or rejects each request by the rule of `shared_limit`; `wait_queue` has the
//! tasks that wait for a limit. `pressure` determines when a rejected client should retry. `connections` limits
//! connections, which come before any request. `turns` orders the work of parsing, tokenizing and writing, and `window`
//! limits the queries of one request that are in the engine at once. `disposal` frees large values off the reactor.

pub(crate) mod admission;
mod background;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod connections;
pub(crate) mod descriptors;
pub(crate) mod disposal;
pub(crate) mod drain;
mod pressure;
mod shared_limit;
pub(crate) mod throttle;
pub(crate) mod turns;
mod wait_queue;
pub(crate) mod window;
