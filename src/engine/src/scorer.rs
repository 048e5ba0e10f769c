//! The `Scorer` trait: the questions a server asks of an engine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::draw::Sampling;
use crate::histogram::Histogram;
use crate::subset::Subset;

/// The most alternatives that are listed at a position.
pub const MAX_TOP: u16 = 64;

/// Score `tokens[score_from..]`, each given everything before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The whole sequence: BOS if any, context, target. Ids below [`ModelCard::vocab_size`].
    pub tokens: Vec<u32>,
    /// Index of the first scored token; at least 1, below `tokens.len()`.
    pub score_from: usize,
    /// What is told of each scored position beside the log-probability. The cache keeps log-probabilities and,
    /// where it was asked for, the most probable token (`top: 1`). With more than that the tokens from `score_from - 1` on
    /// are computed anew; those before are found in the cache as ever.
    pub extras: Extras,
    /// When its turn comes; the answer does not depend on it.
    pub turn: Turn,
}

impl Query {
    /// Asks for log-probabilities alone.
    pub fn new(tokens: Vec<u32>, score_from: usize) -> Self {
        Self { tokens, score_from, ..Self::default() }
    }
}

/// When a query's turn comes, among those that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The smaller, the sooner.
    pub priority: i32,
    /// Who asks: within a priority, clients take turns by tokens.
    pub client: u64,
}

/// What is told of a position's predictive distribution beside one token's log-probability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// So many of the most probable tokens; at most [`MAX_TOP`].
    pub top: u16,
    /// The token's rank.
    pub rank: bool,
    /// The distribution's entropy.
    pub entropy: bool,
    /// The probability of this set of tokens, not empty, of the vocabulary's.
    pub subset: Option<Arc<Subset>>,
}

impl Extras {
    /// True if a log-probability is all that is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A position's predictive distribution, as far as [`Extras`] asked for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// 1 + how many tokens are more probable than the position's own.
    pub rank: Option<u32>,
    /// `-sum_v p_v ln p_v` in nats.
    pub entropy: Option<f32>,
    /// `ln sum p_v` over [`Extras::subset`], in nats, at most 0. Of a set of one token it has the bits of that token's log-probability.
    pub subset: Option<f32>,
    /// The most probable tokens and their log-probabilities in nats, the greatest first; ties by the smaller id.
    pub top: Vec<(u32, f32)>,
}

/// Continue a sequence: after a query's tokens, at most `max_tokens` more.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The most tokens to draw; at least 1.
    pub max_tokens: usize,
    /// How each is drawn.
    pub sampling: Sampling,
    /// Tokens that end the sequence; the one drawn is the last [`Token`].
    pub stop: Vec<u32>,
    /// What is told of each position that is drawn.
    pub extras: Extras,
}

impl Generation {
    /// Refuses numbers that say nothing.
    ///
    /// # Errors
    /// [`ScoreError::Sampling`] names the field, its value and what it may be.
    pub fn check(&self) -> Result<(), ScoreError> {
        let Sampling { temperature, top_p, .. } = self.sampling;
        let refuse = |field, value: String, rule| Err(ScoreError::Sampling { field, value, rule });
        if self.max_tokens == 0 {
            return refuse("max_tokens", "0".to_owned(), "at least 1");
        }
        if !(0.0..=100.0).contains(&temperature) {
            return refuse("temperature", temperature.to_string(), "from 0 to 100");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse("top_p", top_p.to_string(), "above 0 and at most 1");
        }
        Ok(())
    }
}

/// A token that was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token.
    pub id: u32,
    /// Its log-probability in nats, given everything before it, of the model's own distribution: as if it were scored.
    pub logprob: f32,
    /// What [`Generation::extras`] asked for.
    pub position: Position,
    /// Set on the last one.
    pub finish: Option<Finish>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// [`Generation::max_tokens`] were drawn.
    Length,
    /// One of [`Generation::stop`] was drawn.
    Stop,
}

/// What becomes known of a query, in order: the scores of its own tokens, then each token that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The scores of the query's tokens; once.
    Scores(Scores),
    /// The next token.
    Token(Token),
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `ln p(tokens[i] | tokens[..i])` for `i` in `score_from..`, in nats.
    pub logprobs: Vec<f32>,
    /// One a log-probability where [`Query::extras`] asked for something; else none.
    pub positions: Vec<Position>,
    /// Tokens of the sequence whose work was found in the cache.
    pub cached_tokens: usize,
    /// Tokens of the sequence that went through the model.
    pub computed_tokens: usize,
    /// Those of them whose keys and values were in the cache, while what was asked of them was not.
    pub recomputed_tokens: usize,
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
    /// More alternatives than are listed.
    #[error("{top} alternatives are asked for; the most that are listed is {limit}")]
    TooManyAlternatives {
        /// Asked for.
        top: u16,
        /// [`MAX_TOP`].
        limit: u16,
    },
    /// A set of tokens to be told of that is empty, or not of the vocabulary.
    #[error("the subset's largest token id is {largest:?}; it must have one, below {limit}")]
    Subset {
        /// The largest id, if there is any.
        largest: Option<u32>,
        /// The vocabulary's size.
        limit: usize,
    },
    /// A temperature, share or count that says nothing.
    #[error("{field} is {value}; it must be {rule}")]
    Sampling {
        /// The field of [`Sampling`] or [`Generation`].
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        rule: &'static str,
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
    /// It was asked for something that this engine lacks.
    #[error("this engine does not {0}; the native one does")]
    Unsupported(&'static str),
    /// The backend could not compute it.
    #[error("the backend failed: {0}")]
    Backend(String),
    /// The backend is of no more use, whoever asks; a new one is being made.
    #[error("the backend was lost: {0}")]
    Lost(String),
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
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Those of them whose keys and values were in the cache, while what was asked of them was not, ever.
    pub recomputed_tokens: u64,
    /// Tokens found in the cache instead, ever.
    pub cached_tokens: u64,
    /// Log-probabilities answered, ever.
    pub scored_tokens: u64,
    /// Tokens drawn, ever.
    pub generated_tokens: u64,
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
    /// How often the engine died and was started again.
    pub restarts: u64,
    /// Seconds from a query's arrival to its first chunk, or to its answer if the cache had it.
    pub queue_seconds: Histogram,
    /// Seconds from a query's first chunk to its scores.
    pub prefill_seconds: Histogram,
    /// Tokens of a forward pass.
    pub pass_tokens: Histogram,
    /// Queries of a forward pass.
    pub pass_queries: Histogram,
    /// Seconds of a forward pass.
    pub pass_seconds: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            waiting_queries: 0,
            running_queries: 0,
            finished_queries: 0,
            cancelled_queries: 0,
            computed_tokens: 0,
            recomputed_tokens: 0,
            cached_tokens: 0,
            scored_tokens: 0,
            generated_tokens: 0,
            forward_passes: 0,
            total_blocks: 0,
            active_blocks: 0,
            cached_blocks: 0,
            evicted_blocks: 0,
            restarts: 0,
            queue_seconds: Histogram::SECONDS,
            prefill_seconds: Histogram::SECONDS,
            pass_tokens: Histogram::SIZES,
            pass_queries: Histogram::SIZES,
            pass_seconds: Histogram::SECONDS,
        }
    }
}

/// The future of an answer; dropping it cancels the query.
pub type ScoreFuture<'a> = Pin<Box<dyn Future<Output = Result<Scores, ScoreError>> + Send + 'a>>;

/// What becomes known of a query that generates, as it becomes known. It ends after the first error, or after the token
/// that has a [`Finish`]; dropping it cancels the query.
pub type Events = mpsc::Receiver<Result<Event, ScoreError>>;

/// Something that scores token sequences: the native engine, or another behind the same door.
pub trait Scorer: Send + Sync + 'static {
    /// Scores one query. The call itself submits it, so many may be in flight; the answer does not depend on the others.
    fn score(&self, query: Query) -> ScoreFuture<'_>;
    /// Scores a query, of which nothing need be scored (`score_from` may be the length), and continues it.
    fn generate(&self, query: Query, generation: Generation) -> Events;
    /// What is served.
    fn describe(&self) -> &ModelCard;
    /// Counters and gauges, now.
    fn stats(&self) -> Stats;
    /// False while it can answer nothing: queries are refused with [`ScoreError::Stopped`].
    fn is_alive(&self) -> bool {
        true
    }
}
