//! The engine: scheduler, paged KV cache, backends, and the [`Scorer`] they make.
//!
//! A [`Query`] goes one way: [`Scorer::score`] sends it to the engine's thread, the [`Scheduler`] puts its tokens into
//! [`ForwardBatch`]es, a [`Backend`] computes them, and the answer comes back as [`Scores`]. The cache keeps each block's
//! log-probabilities beside its keys and values, so a prefix that was scored before is scored again for free.

mod backend;
mod cache;
mod chain;
mod communicator;
mod cpu;
#[cfg(any(feature = "cuda", feature = "shim"))]
pub mod cuda;
mod draw;
mod engine;
mod group;
mod histogram;
mod part;
mod queue;
mod running;
mod scheduler;
mod scorer;
mod subset;
mod worker;

pub use backend::{
    BLOCK_TOKENS, Backend, BackendError, BlockCopy, BlockId, Choice, Chunk, ForwardBatch, Hidden, Limits, ScoreRow,
    TokenScore,
};
pub use communicator::{Communicator, RankLost, ThreadCommunicator};
pub use cpu::{Activations, CpuBackend, CpuConfig, Instructions, LoadError, Probe, WeightType, vector_bits};
pub use draw::{Draw, Sampling};
pub use engine::{Engine, Rebuild};
pub use group::Group;
pub use histogram::Histogram;
pub use scheduler::{Progress, QueryId, Scheduler, SchedulerConfig, Step};
pub use scorer::{
    Event, Events, Extras, Finish, Generation, MAX_TOP, ModelCard, Position, Query, ScoreError, ScoreFuture, Scorer,
    Scores, Stats, Token, Turn,
};
pub use subset::Subset;
