//! Sources of log-probabilities: the [`LogprobSource`] trait and its implementation over HTTP.
//!
//! Start with the trait below. [`HttpSource`] is one server; [`Replicas`] are several servers of one model. Each of
//! them has a `cooldown`, a period after a failure in which it gets no requests. `failure` classifies failed requests,
//! `retry` repeats those that may succeed later, and `dialect` writes requests and reads responses. `responses` bounds
//! and checks other responses, and `identity` notices a model that changes in a run. The exact source is in
//! [`process`](crate::process).

mod cooldown;
mod dialect;
mod failure;
mod http;
mod identity;
mod options;
mod replicas;
mod responses;
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

/// A query: how probable is `target`, given `context`?
///
/// The symbols `T` are token ids, except that the exact source of a [`Process`](crate::process::Process) may use
/// another type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScoreQuery<T = u32> {
    /// Token ids of the context, without BOS: the source adds the model's BOS, or the BOS in the source's options.
    /// Empty if `target` begins a text.
    pub context: Vec<T>,
    /// Token ids to score; at least one.
    pub target: Vec<T>,
}

impl<T> ScoreQuery<T> {
    /// Returns the length of the whole sequence in tokens, BOS included.
    pub fn sequence_length(&self) -> usize {
        1 + self.context.len() + self.target.len()
    }
}

/// The model behind a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The model's name.
    pub name: String,
    /// The model's fingerprint, which identifies everything that its log-probabilities depend on. For surprisal
    /// servers, equal fingerprints mean bit-identical log-probabilities.
    pub fingerprint: String,
    /// The maximum length of a sequence (BOS, context and target), in tokens.
    pub max_length: usize,
}

/// A source of log-probabilities of token sequences, such as a server or a closed form.
pub trait LogprobSource<T = u32>: Sync {
    /// Returns the model behind this source.
    fn model(&self) -> &Model;

    /// Returns the maximum number of calls in flight. If the process is killed, at most the answers to these calls are
    /// lost.
    fn concurrency(&self) -> usize {
        1
    }

    /// Returns the log-probability in nats of each target token given all tokens before it: one vector per query, in
    /// the same order.
    ///
    /// There may be any number of queries: the source limits the size of its own requests.
    ///
    /// # Errors
    /// The first error that retries do not resolve.
    fn logprobs(&self, queries: Vec<ScoreQuery<T>>) -> impl Future<Output = Result<Vec<Vec<f32>>, Error>> + Send;
}

/// A tokenizer, on a server or in this process.
pub trait Tokenize: Sync {
    /// Returns the token ids of a text, without BOS.
    ///
    /// # Errors
    /// The errors of the tokenizer.
    fn tokenize(&self, text: &str) -> impl Future<Output = Result<Vec<u32>, Error>> + Send;

    /// Returns the token ids of a text like [`tokenize`](Self::tokenize), and the range `[from, to)` of each token in
    /// the text, in bytes; `None` if the tokenizer does not state ranges.
    ///
    /// # Errors
    /// The errors of the tokenizer.
    fn tokenize_with_offsets(
        &self,
        _text: &str,
    ) -> impl Future<Output = Result<Option<TokensAndOffsets>, Error>> + Send {
        std::future::ready(Ok(None))
    }
}

/// The token ids of a text, and the range `[from, to)` of each token in the text, in bytes.
pub type TokensAndOffsets = (Vec<u32>, Vec<[usize; 2]>);

/// Groups items with these token counts into consecutive ranges, each with at most `max_items` items and, unless it is
/// a single item, at most `max_tokens` tokens.
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
