//! Runtime: the thread that owns the scheduler and the backend, and the handle that other threads use.
//!
//! Start with `engine.rs`, the handle. `worker.rs` is the thread's loop; `supervisor.rs` replaces a worker that fails;
//! `submission.rs` defines what the handle and the thread exchange.

mod engine;
mod submission;
mod supervisor;
mod worker;

pub use engine::Engine;
pub use supervisor::BackendFactory;
