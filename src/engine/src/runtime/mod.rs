//! Runtime: the thread that owns the scheduler and the backend, and the handle through which others use it.
//!
//! Start with `engine.rs`, the handle. `worker.rs` is the loop of the thread; `supervisor.rs` replaces a worker that
//! fails; `submission.rs` is what they exchange.

mod engine;
mod submission;
mod supervisor;
mod worker;

pub use engine::Engine;
pub use supervisor::BackendFactory;
