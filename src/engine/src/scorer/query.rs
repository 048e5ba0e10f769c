//! A query to a scorer: the tokens to score, the details to return, and how to continue.

use std::sync::Arc;

use crate::sampling::Sampling;
use crate::scorer::answer::ScoreError;
use crate::scorer::namespace::CacheNamespace;
use crate::scorer::subset::Subset;

/// Maximum number of alternatives that a query may request per position.
pub const MAX_TOP: u16 = 64;

/// A request to score `tokens[score_from..]`, each token given everything before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The whole sequence: BOS if any, context, target. Ids must be below
    /// [`ModelCard::vocab_size`](crate::ModelCard::vocab_size).
    pub tokens: Vec<u32>,
    /// Index of the first scored token: at least 1 and, unless the query generates, less than `tokens.len()`.
    pub score_from: usize,
    /// The details to return for each scored position, in addition to the log-probability.
    ///
    /// The cache keeps log-probabilities and, where a query requested it, the most probable token (`top: 1`). With any
    /// other options, the engine reuses only cached tokens before `score_from` and computes all later tokens again.
    pub options: PositionOptions,
    /// Priority and client; the answer does not depend on them.
    pub scheduling: SchedulingParams,
    /// The part of the prefix cache that the query reads and extends.
    pub namespace: CacheNamespace,
}

impl Query {
    /// Creates a query for log-probabilities only.
    pub fn new(tokens: Vec<u32>, score_from: usize) -> Self {
        Self { tokens, score_from, ..Self::default() }
    }
}

/// The parameters that determine a query's position in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulingParams {
    /// Smaller values run sooner.
    pub priority: i32,
    /// The client's id. Clients with queries of the same priority take turns, measured in tokens.
    pub client: u64,
}

/// The details to return about a position's predictive distribution, in addition to its token's log-probability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionOptions {
    /// Number of most probable tokens to return; at most [`MAX_TOP`].
    pub top: u16,
    /// Enables the token's rank.
    pub rank: bool,
    /// Enables the distribution's entropy.
    pub entropy: bool,
    /// Set of tokens whose log total probability is returned; `None` to omit it. The set must not be empty, and its ids
    /// must be within the vocabulary.
    pub subset: Option<Arc<Subset>>,
}

impl PositionOptions {
    /// Returns `true` if no details are requested.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The continuation of a sequence: at most `max_tokens` sampled tokens after the query's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Maximum number of tokens to sample; at least 1.
    pub max_tokens: usize,
    /// The sampling parameters of each token.
    pub sampling: Sampling,
    /// Tokens that end the sequence. If one of them is sampled, it is returned as the last
    /// [`GeneratedToken`](crate::GeneratedToken).
    pub stop: Vec<u32>,
    /// The details to return for each sampled position.
    pub options: PositionOptions,
}

impl Generation {
    /// Rejects parameters that are out of range.
    ///
    /// # Errors
    /// Returns [`ScoreError::Sampling`], which names the field, its value and the rule.
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
