//! The engine: scheduler, paged KV cache, backends, and the [`Scorer`] that they form.
//!
//! Each [`Query`] takes the same path: [`Scorer::score`] sends it to the engine's thread (`runtime`), the [`Scheduler`]
//! (`scheduling`) puts its tokens into [`ForwardBatch`]es, a [`Backend`] (`backend.rs`; `cpu`, `cuda`) computes them,
//! and the answer comes back as [`Scores`] (`scorer`). The cache keeps each block's log-probabilities with its keys and
//! values, so scoring a cached prefix again needs no forward pass.
//!
//! Start with `scorer/mod.rs`, the interface. Continue with `scheduling/scheduler.rs`, which chooses the tokens of each
//! forward pass.

mod backend;
mod cpu;
#[cfg(any(feature = "cuda", feature = "shim"))]
pub mod cuda;
mod load_error;
mod parallel;
mod runtime;
mod sampling;
mod scheduling;
mod scorer;
mod shrink;

pub use backend::{
    BLOCK_TOKENS, Backend, BackendError, BlockCopy, BlockId, Chunk, ForwardBatch, Hidden, Limits, ScoreRow,
    TokenChoice, TokenScore,
};
pub use cpu::{ActivationDtype, CpuBackend, CpuConfig, Instructions, KernelBench, WeightDtype, vector_bits};
pub use load_error::LoadError;
pub use parallel::communicator::{Communicator, RankLost, ThreadCommunicator};
pub use parallel::group::TensorParallelGroup;
pub use runtime::{BackendFactory, Engine};
pub use sampling::{Sample, Sampling};
pub use scheduling::{QueryId, QueryUpdate, ScheduledBatch, Scheduler, SchedulerConfig};
pub use scorer::{
    CacheNamespace, FinishReason, GeneratedToken, Generation, Histogram, MAX_TOP, ModelCard, PositionDetails,
    PositionOptions, Query, QueryEvent, QueryEvents, SchedulingParams, ScoreError, ScoreFuture, Scorer, Scores, Stats,
    Subset,
};
