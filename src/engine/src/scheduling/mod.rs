//! Scheduling: the choice of each forward pass's tokens, and the reuse of cached results of earlier passes.
//!
//! Start with `scheduler.rs`: `next_batch` and `complete` are the whole loop. `turns.rs` decides whose chunk is next,
//! `queue.rs` and `candidates.rs` which waiting query is next, `admission.rs` starts it, `running.rs` cuts it into
//! chunks, and `cache.rs` finds prefixes that were computed before.

mod admission;
mod cache;
mod candidates;
mod client_queue;
mod job;
mod prefix_hash;
mod queue;
mod running;
mod scheduler;
mod turns;

pub use job::QueryId;
pub use scheduler::{QueryUpdate, ScheduledBatch, Scheduler, SchedulerConfig};
