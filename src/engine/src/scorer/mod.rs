//! The public interface of every engine: a [`Query`] goes in, [`Scores`] and generated tokens come out.
//!
//! Start with the [`Scorer`] trait below. `query.rs` defines what a caller requests, `answer.rs` what the caller gets,
//! and `stats.rs` what an operator sees.

use std::future::Future;
use std::pin::Pin;

mod answer;
mod events;
mod namespace;
mod query;
mod stats;
pub(crate) mod subset;

pub use answer::{FinishReason, GeneratedToken, PositionDetails, QueryEvent, ScoreError, Scores};
pub(crate) use events::CancelGuard;
pub use events::QueryEvents;
pub use namespace::CacheNamespace;
pub use query::{Generation, MAX_TOP, PositionOptions, Query, SchedulingParams};
pub use stats::{Histogram, Stats};
pub use subset::Subset;

/// The model that a [`Scorer`] serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// The model's name.
    pub id: String,
    /// Fingerprint of everything that the results depend on: a hash of the model's files, dtype, backend, numerics
    /// version. Engines with equal fingerprints return bit-identical results.
    pub fingerprint: String,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence that can be scored, in tokens.
    pub max_length: usize,
    /// Human-readable description of the device.
    pub device: String,
}

/// A future of a query's scores. Dropping it cancels the query.
pub type ScoreFuture<'a> = Pin<Box<dyn Future<Output = Result<Scores, ScoreError>> + Send + 'a>>;

/// A scorer of token sequences: the native engine, or another one behind the same interface.
pub trait Scorer: Send + Sync + 'static {
    /// Scores one query. Many queries can be in flight at the same time; the answer does not depend on the others. The
    /// native engine submits the query in this call, before the future is polled.
    fn score(&self, query: Query) -> ScoreFuture<'_>;
    /// Scores a query, then continues it. To score nothing, set `score_from` to the number of tokens.
    fn generate(&self, query: Query, generation: Generation) -> QueryEvents;
    /// Returns a description of the model.
    fn describe(&self) -> &ModelCard;
    /// Returns the current counters, gauges and histograms.
    fn stats(&self) -> Stats;
    /// Returns `false` if the scorer rejects queries with any [`PositionOptions`].
    fn has_position_details(&self) -> bool {
        true
    }
    /// Returns `false` while the engine cannot answer queries and rejects them with [`ScoreError::Stopped`].
    fn is_alive(&self) -> bool {
        true
    }
}
