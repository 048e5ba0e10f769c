//! The answer to a query: scores, details of each position, generated tokens, or an error.

/// The scores of a [`Query`](crate::Query).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `ln p(tokens[i] | tokens[..i])` for `i` in `score_from..`, in nats.
    pub logprobs: Vec<f32>,
    /// The details of each scored position; empty if [`Query::options`](crate::Query::options) requests none.
    pub positions: Vec<PositionDetails>,
    /// Number of the sequence's tokens that were reused from the cache.
    pub cached_tokens: usize,
    /// Number of the sequence's tokens that went through the model.
    pub computed_tokens: usize,
    /// Number of tokens that were computed although their keys and values were in the cache, because the scores or
    /// details that the query requests were not.
    pub recomputed_tokens: usize,
}

impl Scores {
    /// Returns the target's log-probability in nats: the sum of the f32 values in f64, in order.
    pub fn sum(&self) -> f64 {
        self.logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
    }
}

/// The details of a position's predictive distribution that [`PositionOptions`](crate::PositionOptions) requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PositionDetails {
    /// Rank of the position's token: 1 plus the number of more probable tokens; `None` if not requested.
    pub rank: Option<u32>,
    /// Entropy: `-sum_v p_v ln p_v`, in nats; `None` if not requested.
    pub entropy: Option<f32>,
    /// Log-probability of the subset: `ln sum p_v` over [`PositionOptions::subset`](crate::PositionOptions::subset), in
    /// nats, at most 0; `None` if not requested. For a subset of one token, it is bit-identical to that token's
    /// log-probability.
    pub subset: Option<f32>,
    /// The most probable tokens and their log-probabilities in nats, most probable first. Ties are broken by smaller
    /// id.
    pub top: Vec<(u32, f32)>,
}

/// A token that the engine sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedToken {
    /// Token id.
    pub id: u32,
    /// Log-probability in nats given all tokens before this one, under the model's distribution before temperature,
    /// top-k and top-p: the same as if the token were given instead of sampled.
    pub logprob: f32,
    /// The details that [`Generation::options`](crate::Generation::options) requests.
    pub position: PositionDetails,
    /// The reason the sequence ends with this token; `None` if the sequence continues.
    pub finish_reason: Option<FinishReason>,
}

/// The reason a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The engine sampled [`Generation::max_tokens`](crate::Generation::max_tokens) tokens.
    Length,
    /// The engine sampled one of the tokens in [`Generation::stop`](crate::Generation::stop).
    Stop,
}

/// A result of a query. The scores of its own tokens come first, then each sampled token.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryEvent {
    /// The scores of the query's own tokens, sent once.
    Scores(Scores),
    /// The next sampled token.
    Token(GeneratedToken),
}

/// The reason a query was not answered.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScoreError {
    /// No token precedes the first scored token.
    #[error("score_from is {0}; it must be at least 1, because the first scored token needs a token before it")]
    NoContext(usize),
    /// The query has no token to score.
    #[error("score_from is {score_from}, but the sequence has only {len} tokens; there is nothing to score")]
    NothingToScore {
        /// The query's `score_from`.
        score_from: usize,
        /// Length of the sequence, in tokens.
        len: usize,
    },
    /// The query requests more alternatives than [`MAX_TOP`](crate::MAX_TOP).
    #[error("{top} alternatives are requested; the limit is {limit}")]
    TooManyAlternatives {
        /// Number of alternatives requested.
        top: u16,
        /// Largest number supported.
        limit: u16,
    },
    /// The subset is empty or contains ids outside the vocabulary.
    #[error("the subset {}; it must contain at least one token id, all below {limit}", largest_id(*largest))]
    Subset {
        /// Largest id; `None` if the subset is empty.
        largest: Option<u32>,
        /// Size of the vocabulary.
        limit: usize,
    },
    /// A temperature, probability or count is out of range.
    #[error("{field} is {value}; it must be {rule}")]
    Sampling {
        /// The field of [`Sampling`](crate::Sampling) or [`Generation`](crate::Generation).
        field: &'static str,
        /// The field's value.
        value: String,
        /// The field's allowed values.
        rule: &'static str,
    },
    /// The sequence, including the tokens to be sampled, is too long for the model or the cache.
    #[error("the sequence has {len} tokens; the limit is {limit}")]
    TooLong {
        /// Length of the sequence, in tokens.
        len: usize,
        /// Length of the longest sequence that fits.
        limit: usize,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {token} at position {position} is out of range; the vocabulary has {limit} ids")]
    TokenOutOfRange {
        /// Token id.
        token: u32,
        /// The token's index in the sequence.
        position: usize,
        /// Size of the vocabulary.
        limit: usize,
    },
    /// The query requests something that this engine does not support.
    #[error("this engine does not {0}; the native engine does")]
    Unsupported(&'static str),
    /// The backend could not compute the query.
    #[error("the backend failed: {0}")]
    Backend(String),
    /// The backend failed permanently; the engine is creating a new one.
    #[error("the backend failed and must be restarted: {0}")]
    BackendLost(String),
    /// The engine has stopped, or it is dead and may be reloading its backend.
    #[error("the engine is not running: it has stopped or is restarting")]
    Stopped,
}

/// Describes a subset by its largest id.
fn largest_id(largest: Option<u32>) -> String {
    largest.map_or("is empty".to_owned(), |id| format!("contains token id {id}"))
}
