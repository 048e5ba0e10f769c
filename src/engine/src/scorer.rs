//! The `Scorer` trait: the one question a server asks of an engine.

use std::future::Future;
use std::pin::Pin;

/// Score `tokens[score_from..]`, each given everything before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The whole sequence: BOS if any, context, target. Ids below [`ModelCard::vocab_size`].
    pub tokens: Vec<u32>,
    /// Index of the first scored token; at least 1, below `tokens.len()`.
    pub score_from: usize,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `ln p(tokens[i] | tokens[..i])` for `i` in `score_from..`, in nats.
    pub logprobs: Vec<f32>,
    /// Tokens of the sequence whose work was found in the cache.
    pub cached_tokens: usize,
    /// Tokens of the sequence that went through the model.
    pub computed_tokens: usize,
}

impl Scores {
    /// The target's log-probability in nats: the f32 values added in f64, in order.
    pub fn sum(&self) -> f64 {
        self.logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
    }
}

/// Why a query was not scored.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScoreError {
    /// The query's first scored token has nothing before it.
    #[error("score_from is {0}; the first scored token needs at least one token before it")]
    NothingGiven(usize),
    /// Nothing to score.
    #[error("score_from is {score_from}, but the sequence has only {len} tokens: nothing to score")]
    NothingToScore {
        /// The query's `score_from`.
        score_from: usize,
        /// The sequence's length.
        len: usize,
    },
    /// Longer than the model or the cache can hold.
    #[error("the sequence has {len} tokens; the longest that fits is {limit}")]
    TooLong {
        /// The sequence's length.
        len: usize,
        /// The longest that can be scored.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {token} at position {position} is out of range; the vocabulary has {limit} ids")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Its place in the sequence.
        position: usize,
        /// The vocabulary's size.
        limit: usize,
    },
    /// The backend failed on the batch that held this query.
    #[error("the backend failed: {0}")]
    Backend(String),
    /// The engine has stopped.
    #[error("the engine is shutting down")]
    Stopped,
}

/// What a [`Scorer`] serves.
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
    /// The device, in words.
    pub device: String,
}

/// A snapshot of the engine's counters and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Queries accepted and not yet scheduled.
    pub waiting_queries: u64,
    /// Queries being computed.
    pub running_queries: u64,
    /// Queries answered, ever.
    pub finished_queries: u64,
    /// Queries dropped because nobody waited for the answer, ever.
    pub cancelled_queries: u64,
    /// Tokens that went through the model, ever.
    pub computed_tokens: u64,
    /// Tokens found in the cache instead, ever.
    pub cached_tokens: u64,
    /// Log-probabilities answered, ever.
    pub scored_tokens: u64,
    /// Forward passes, ever.
    pub forward_passes: u64,
    /// KV blocks there are.
    pub total_blocks: u64,
    /// KV blocks held by running queries.
    pub active_blocks: u64,
    /// KV blocks that hold a reusable prefix and nobody uses now.
    pub cached_blocks: u64,
    /// Cached blocks given up for new ones, ever.
    pub evicted_blocks: u64,
}

/// The future of an answer; dropping it cancels the query.
pub type ScoreFuture<'a> = Pin<Box<dyn Future<Output = Result<Scores, ScoreError>> + Send + 'a>>;

/// Something that scores token sequences: the native engine, or another behind the same door.
pub trait Scorer: Send + Sync + 'static {
    /// Scores one query. The call itself submits it, so many may be in flight; the answer does not depend on the others.
    fn score(&self, query: Query) -> ScoreFuture<'_>;
    /// What is served.
    fn describe(&self) -> &ModelCard;
    /// Counters and gauges, now.
    fn stats(&self) -> Stats;
}
