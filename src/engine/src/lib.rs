//! The engine: scheduler, paged KV cache, backends, and the [`Scorer`] they make.
//!
//! A [`Query`] goes one way: [`Scorer::score`] sends it to the engine's thread, the [`Scheduler`] puts its tokens into
//! [`ForwardBatch`]es, a [`Backend`] computes them, and the answer comes back as [`Scores`]. The cache keeps each block's
//! log-probabilities beside its keys and values, so a prefix that was scored before is scored again for free.

mod backend;
mod cache;
mod chain;
mod cpu;
#[cfg(any(feature = "cuda", feature = "shim"))]
pub mod cuda;
mod engine;
mod running;
mod scheduler;
mod scorer;

pub use backend::{
    BLOCK_TOKENS, Backend, BackendError, BlockCopy, BlockId, Chunk, ForwardBatch, Hidden, Limits, ScoreRow,
};
pub use cpu::{Activations, CpuBackend, CpuConfig, LoadError, WeightType, vector_bits};
pub use engine::Engine;
pub use scheduler::{Finished, QueryId, Scheduler, SchedulerConfig, Step};
pub use scorer::{ModelCard, Query, ScoreError, ScoreFuture, Scorer, Scores, Stats};
