//! A query as submitted: its validation, and its requirements on the cache.

use crate::backend::{BLOCK_TOKENS, Limits};
use crate::scheduling::cache::{KnownScore, RequiredScores};
use crate::scorer::{Generation, MAX_TOP, PositionDetails, PositionOptions, Query, ScoreError};

/// The caller's identifier for a query.
pub type QueryId = u64;

/// A query and, if it generates, the parameters of its continuation.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: QueryId,
    pub(crate) query: Query,
    pub(crate) generation: Option<Box<Generation>>,
}

/// Returns how many tokens of a sequence must run through the model: all of them if another token is to be sampled,
/// otherwise all except the last.
pub(crate) fn tokens_to_compute(query: &Query, generation: Option<&Generation>) -> usize {
    query.tokens.len() - usize::from(generation.is_none())
}

impl Job {
    /// Rejects a query that the backend cannot answer.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ScoreError> {
        let Job { query, generation, .. } = self;
        let (len, limit) = (query.tokens.len(), limits.max_query_length());
        if query.score_from == 0 {
            return Err(ScoreError::NoContext(0));
        }
        if query.score_from + usize::from(generation.is_none()) > len {
            return Err(ScoreError::NothingToScore { score_from: query.score_from, len });
        }
        if self.max_len() > limit {
            return Err(ScoreError::TooLong { len: self.max_len(), limit });
        }
        let top = self.options().map(|options| options.top).fold(0, u16::max);
        if top > MAX_TOP {
            return Err(ScoreError::TooManyAlternatives { top, limit: MAX_TOP });
        }
        if let Some(generation) = generation {
            generation.check()?;
        }
        self.check_tokens(limits.vocab_size)
    }

    /// Rejects tokens and subsets outside the vocabulary.
    fn check_tokens(&self, limit: usize) -> Result<(), ScoreError> {
        for subset in self.options().filter_map(|options| options.subset.as_deref()) {
            let largest = subset.largest();
            if largest.is_none_or(|largest| largest as usize >= limit) {
                return Err(ScoreError::Subset { largest, limit });
            }
        }
        for (position, &token) in self.query.tokens.iter().enumerate() {
            if token as usize >= limit {
                return Err(ScoreError::TokenOutOfRange { token, position, limit });
            }
        }
        Ok(())
    }

    /// Returns the options of the scored positions, then those of the sampled ones.
    fn options(&self) -> impl Iterator<Item = &PositionOptions> {
        let sampled = self.generation.as_ref().map(|generation| &generation.options);
        std::iter::once(&self.query.options).chain(sampled)
    }

    /// Returns the maximum length of the sequence in tokens, including those to be sampled.
    pub(crate) fn max_len(&self) -> usize {
        let max_tokens = self.generation.as_ref().map_or(0, |generation| generation.max_tokens);
        self.query.tokens.len().saturating_add(max_tokens)
    }

    /// Returns how many of the query's own tokens must run through the model.
    pub(crate) fn tokens_to_compute(&self) -> usize {
        tokens_to_compute(&self.query, self.generation.as_deref())
    }

    /// Returns the number of blocks for all tokens of the sequence except the last.
    pub(crate) fn blocks(&self) -> usize {
        (self.max_len() - 1).div_ceil(BLOCK_TOKENS)
    }

    /// Returns the tokens that can be reused from the cache: all of them or, if the query requests details that the
    /// cache does not store (any except `top: 1`), only those before `score_from`.
    pub(crate) fn reusable_tokens(&self) -> &[u32] {
        let Query { tokens, score_from, options, .. } = &self.query;
        if options.is_empty() || self.needs_top1_only() { tokens } else { &tokens[..*score_from] }
    }

    /// Returns the scores that the cache must have for a token to be reused.
    pub(crate) fn required_scores(&self) -> RequiredScores {
        RequiredScores { from: self.query.score_from, top1: self.needs_top1_only() }
    }

    fn needs_top1_only(&self) -> bool {
        self.query.options == PositionOptions { top: 1, ..PositionOptions::default() }
    }

    /// Returns the details of positions whose scores are cached; empty unless the query requests exactly `top: 1`.
    pub(crate) fn cached_positions(&self, scores: &[KnownScore]) -> Vec<PositionDetails> {
        if !self.needs_top1_only() {
            return Vec::new();
        }
        let details = |score: &KnownScore| PositionDetails {
            top: score.top1.into_iter().collect(),
            ..PositionDetails::default()
        };
        scores.iter().map(details).collect()
    }
}
