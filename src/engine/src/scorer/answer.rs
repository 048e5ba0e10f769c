//! The answer to a query: scores, details of each position, generated tokens, or the reason why there is none.

/// The scores of a [`Query`](crate::Query).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `ln p(tokens[i] | tokens[..i])` for `i` in `score_from..`, in nats.
    pub logprobs: Vec<f32>,
    /// One for each log-probability if [`Query::options`](crate::Query::options) asks for details; else empty.
    pub positions: Vec<PositionDetails>,
    /// Tokens of the sequence whose work was found in the cache.
    pub cached_tokens: usize,
    /// Tokens of the sequence that went through the model.
    pub computed_tokens: usize,
    /// Computed tokens whose keys and values were in the cache, but not the details that the query asks for.
    pub recomputed_tokens: usize,
}

impl Scores {
    /// Returns the target's log-probability in nats: the f32 values added in f64, in order.
    pub fn sum(&self) -> f64 {
        self.logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
    }
}

/// A position's predictive distribution, as far as [`PositionOptions`](crate::PositionOptions) asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PositionDetails {
    /// 1 + how many tokens are more probable than the position's own.
    pub rank: Option<u32>,
    /// `-sum_v p_v ln p_v` in nats.
    pub entropy: Option<f32>,
    /// `ln sum p_v` over [`PositionOptions::subset`](crate::PositionOptions::subset), in nats, at most 0. For a set of
    /// one token it has the bits of that token's log-probability.
    pub subset: Option<f32>,
    /// The most probable tokens and their log-probabilities in nats, the greatest first; ties by the smaller id.
    pub top: Vec<(u32, f32)>,
}

/// A token that the engine sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedToken {
    /// The token.
    pub id: u32,
    /// Its log-probability in nats, given everything before it, under the model's own distribution: as if it were
    /// scored.
    pub logprob: f32,
    /// The details that [`Generation::options`](crate::Generation::options) asks for.
    pub position: PositionDetails,
    /// Set on the last token.
    pub finish_reason: Option<FinishReason>,
}

/// The reason why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// It has [`Generation::max_tokens`](crate::Generation::max_tokens).
    Length,
    /// The engine sampled one of [`Generation::stop`](crate::Generation::stop).
    Stop,
}

/// A result of a query, in order: the scores of its own tokens, then each sampled token.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryEvent {
    /// The scores of the query's tokens; once.
    Scores(Scores),
    /// The next token.
    Token(GeneratedToken),
}

/// The reason why a query was not scored.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScoreError {
    /// The query's first scored token has nothing before it.
    #[error("score_from is {0}; the first scored token needs at least one token before it")]
    NoContext(usize),
    /// Nothing to score.
    #[error("score_from is {score_from}, but the sequence has only {len} tokens: nothing to score")]
    NothingToScore {
        /// The query's `score_from`.
        score_from: usize,
        /// The sequence's length.
        len: usize,
    },
    /// More alternatives than [`MAX_TOP`](crate::MAX_TOP).
    #[error("{top} alternatives are asked for; the most that are listed is {limit}")]
    TooManyAlternatives {
        /// The number that the query requests.
        top: u16,
        /// The most.
        limit: u16,
    },
    /// A subset that is empty, or not part of the vocabulary.
    #[error("the subset's largest token id is {largest:?}; it must have one, below {limit}")]
    Subset {
        /// The largest id, if there is any.
        largest: Option<u32>,
        /// The vocabulary's size.
        limit: usize,
    },
    /// A temperature, probability or count out of range.
    #[error("{field} is {value}; it must be {rule}")]
    Sampling {
        /// The field of [`Sampling`](crate::Sampling) or [`Generation`](crate::Generation).
        field: &'static str,
        /// Its value.
        value: String,
        /// The values it may have.
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
        /// Its index in the sequence.
        position: usize,
        /// The vocabulary's size.
        limit: usize,
    },
    /// The query asks for something that this engine lacks.
    #[error("this engine does not {0}; the native one does")]
    Unsupported(&'static str),
    /// The backend could not compute it.
    #[error("the backend failed: {0}")]
    Backend(String),
    /// The backend failed for good; the engine is making a new one.
    #[error("the backend was lost: {0}")]
    BackendLost(String),
    /// The engine has stopped.
    #[error("the engine is shutting down")]
    Stopped,
}
