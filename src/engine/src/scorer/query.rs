//! A question to a scorer: which tokens to score, what else to return, and how to continue.

use std::sync::Arc;

use crate::sampling::Sampling;
use crate::scorer::answer::ScoreError;
use crate::scorer::subset::Subset;

/// The most alternatives that a query may ask for at a position.
pub const MAX_TOP: u16 = 64;

/// A request to score `tokens[score_from..]`, each given everything before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The whole sequence: BOS if any, context, target. Ids below
    /// [`ModelCard::vocab_size`](crate::ModelCard::vocab_size).
    pub tokens: Vec<u32>,
    /// Index of the first scored token; at least 1, below `tokens.len()`.
    pub score_from: usize,
    /// The details to return of each scored position beside the log-probability.
    ///
    /// The cache keeps log-probabilities and, where a query requested it, the most probable token (`top: 1`). With more
    /// options than that, the engine recomputes the tokens from `score_from - 1` on; it still finds those before in the
    /// cache.
    pub options: PositionOptions,
    /// Priority and client; the answer does not depend on them.
    pub scheduling: SchedulingParams,
}

impl Query {
    /// Makes a query for log-probabilities alone.
    pub fn new(tokens: Vec<u32>, score_from: usize) -> Self {
        Self { tokens, score_from, ..Self::default() }
    }
}

/// The parameters that order a query among those that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulingParams {
    /// Smaller values run sooner.
    pub priority: i32,
    /// The client: within a priority, the scheduler serves clients in turn, by tokens.
    pub client: u64,
}

/// The details to return of a position's predictive distribution beside one token's log-probability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionOptions {
    /// Number of most probable tokens; at most [`MAX_TOP`].
    pub top: u16,
    /// The token's rank.
    pub rank: bool,
    /// The distribution's entropy.
    pub entropy: bool,
    /// The probability of this set of tokens: not empty, and part of the vocabulary.
    pub subset: Option<Arc<Subset>>,
}

impl PositionOptions {
    /// Returns true if a log-probability is all that the query asks for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The continuation of a sequence: after a query's tokens, at most `max_tokens` more.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The most tokens to sample; at least 1.
    pub max_tokens: usize,
    /// The sampling of each.
    pub sampling: Sampling,
    /// Tokens that end the sequence; the one sampled is the last [`GeneratedToken`](crate::GeneratedToken).
    pub stop: Vec<u32>,
    /// The details to return of each sampled position.
    pub options: PositionOptions,
}

impl Generation {
    /// Rejects numbers out of range.
    ///
    /// # Errors
    /// [`ScoreError::Sampling`] names the field, its value and the rule.
    pub fn check(&self) -> Result<(), ScoreError> {
        let Sampling { temperature, top_p, .. } = self.sampling;
        let reject = |field, value: String, rule| Err(ScoreError::Sampling { field, value, rule });
        if self.max_tokens == 0 {
            return reject("max_tokens", "0".to_owned(), "at least 1");
        }
        if !(0.0..=100.0).contains(&temperature) {
            return reject("temperature", temperature.to_string(), "from 0 to 100");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return reject("top_p", top_p.to_string(), "above 0 and at most 1");
        }
        Ok(())
    }
}
