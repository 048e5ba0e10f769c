//! The public interface of every engine: a [`Query`] goes in, [`Scores`] and generated tokens come out.
//!
//! Start with the [`Scorer`] trait below; `query.rs` is what a caller asks for, `answer.rs` what it gets, `stats.rs`
//! what an operator sees.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;

mod answer;
mod query;
mod stats;
pub(crate) mod subset;

pub use answer::{FinishReason, GeneratedToken, PositionDetails, QueryEvent, ScoreError, Scores};
pub use query::{Generation, MAX_TOP, PositionOptions, Query, SchedulingParams};
pub use stats::{Histogram, Stats};
pub use subset::Subset;

/// The model that a [`Scorer`] serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// The model's name.
    pub id: String,
    /// Weights hash, dtype, backend, kernel version: equal fingerprints, equal bits.
    pub fingerprint: String,
    /// Number of token ids.
    pub vocab_size: usize,
    /// The longest sequence that can be scored, in tokens.
    pub max_length: usize,
    /// The device, as text for people.
    pub device: String,
}

/// The future of an answer; dropping it cancels the query.
pub type ScoreFuture<'a> = Pin<Box<dyn Future<Output = Result<Scores, ScoreError>> + Send + 'a>>;

/// The events of a query that generates, as they happen. It ends after the first error, or after the token that has a
/// [`FinishReason`]; dropping it cancels the query.
pub type QueryEvents = mpsc::Receiver<Result<QueryEvent, ScoreError>>;

/// A scorer of token sequences: the native engine, or another one behind the same interface.
pub trait Scorer: Send + Sync + 'static {
    /// Scores one query. The call itself submits it, so many may be in flight; the answer does not depend on the
    /// others.
    fn score(&self, query: Query) -> ScoreFuture<'_>;
    /// Scores a query and continues it. Nothing need be scored: `score_from` may be the length.
    fn generate(&self, query: Query, generation: Generation) -> QueryEvents;
    /// Describes the model.
    fn describe(&self) -> &ModelCard;
    /// Returns the current counters and gauges.
    fn stats(&self) -> Stats;
    /// Returns false while the engine can answer nothing: it rejects queries with [`ScoreError::Stopped`].
    fn is_alive(&self) -> bool {
        true
    }
}
