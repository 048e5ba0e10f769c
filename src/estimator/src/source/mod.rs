//! Sources of log-probabilities: the [`LogprobSource`] trait and its implementation over HTTP.
//!
//! Start with the trait below. [`HttpSource`] is one server, [`Replicas`] several servers of one model, whose `cooldown` keeps requests
//! away from a server that failed. `failure` classifies failed requests, `retry` repeats those that may succeed later, and `dialect`
//! writes requests for other servers. The exact source is in [`process`](crate::process).

mod cooldown;
mod dialect;
mod failure;
mod http;
mod options;
mod replicas;
mod retry;
mod served_model;

pub use dialect::ScoringDialect;
pub use http::HttpSource;
pub use options::{ApiKey, HttpOptions};
pub use replicas::{Replicas, Routing};
pub use retry::RetryPolicy;

use std::future::Future;
use std::ops::Range;

use crate::error::Error;

/// A question: how probable is `target`, given `context`?
///
/// Symbols `T` are token ids; an exact source of a [`Process`](crate::process::Process) may take others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScoreQuery<T = u32> {
    /// Token ids that are given, without BOS: the source adds the model's own, or the one it was given. Empty: the beginning of
    /// a text.
    pub context: Vec<T>,
    /// Token ids to score; at least one.
    pub target: Vec<T>,
}

impl<T> ScoreQuery<T> {
    /// Length of the whole sequence in tokens, BOS included.
    pub fn sequence_length(&self) -> usize {
        1 + self.context.len() + self.target.len()
    }
}

/// The model that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The model's name.
    pub name: String,
    /// Identifies all that log-probabilities depend on: equal fingerprints, equal bits.
    pub fingerprint: String,
    /// The longest sequence (BOS, context and target) that is scored, in tokens.
    pub max_length: usize,
}

/// Anything that scores token sequences: a server, a stored run, a closed form.
pub trait LogprobSource<T = u32>: Sync {
    /// Returns the model that answers.
    fn model(&self) -> &Model;

    /// Returns how many calls are in flight at once; a process that is killed loses at most their answers.
    fn concurrency(&self) -> usize {
        1
    }

    /// Returns the log-probability in nats of each target token given everything before it: one vector a query, in the queries' order.
    ///
    /// The source bounds its own requests.
    ///
    /// # Errors
    /// The first failure that retries do not resolve.
    fn logprobs(&self, queries: Vec<ScoreQuery<T>>) -> impl Future<Output = Result<Vec<Vec<f32>>, Error>> + Send;
}

/// A tokenizer: a server, or one in this process.
pub trait Tokenize: Sync {
    /// Returns the token ids of a text, without BOS.
    ///
    /// # Errors
    /// What the tokenizer fails with.
    fn tokenize(&self, text: &str) -> impl Future<Output = Result<Vec<u32>, Error>> + Send;
}

/// Groups items of these token counts into consecutive ranges, each of at most `max_items` items and, unless it is a single item, at
/// most `max_tokens` tokens.
pub(crate) fn group_within_limits(
    lengths: impl IntoIterator<Item = usize>,
    max_items: usize,
    max_tokens: usize,
) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (index, length) in lengths.into_iter().enumerate() {
        match ranges.last_mut() {
            Some(range) if range.len() < max_items && sum + length <= max_tokens => {
                range.end += 1;
                sum += length;
            }
            _ => {
                ranges.push(index..index + 1);
                sum = length;
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_order_and_limits() {
        let lengths = [5, 5, 5, 5, 101, 5, 15, 2];
        assert_eq!(group_within_limits(lengths, 3, 20), [0..3, 3..4, 4..5, 5..7, 7..8]);
        assert!(group_within_limits([], 3, 20).is_empty());
    }
}
