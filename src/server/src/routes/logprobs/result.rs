//! The results of `/logprobs`: one per query, made from its scores.

use surprisal_api::{LogprobsResponse, OffsetUnit, QueryResult, TokenText, Usage};
use surprisal_engine::{PositionDetails, PositionOptions, Scores};

use super::encoded_pairs::EncodedTarget;
use super::plan::QueryPlan;
use crate::app::{App, TOKEN_BYTES};
use crate::limits::turns::JobSize;
use crate::problem::{self, Failure};
use crate::token_texts::divide;

/// The memory of a result without lists, in bytes.
const RESULT_BYTES: usize = 128;

/// The memory of a token's details in a result and in its JSON, in bytes.
const DETAIL_BYTES: usize = 128;

/// The memory of an alternative with its text in a result and in its JSON, in bytes.
const ALTERNATIVE_BYTES: usize = 96;

/// The memory of a byte of the target's text in a result and in its JSON, in bytes. Eight are for the number of
/// characters before it.
const TEXT_BYTES: usize = 12;

/// Returns the response without its results.
pub(super) fn envelope(app: &App, usage: Usage) -> LogprobsResponse {
    let card = app.model();
    let (model, fingerprint) = (card.id.clone(), card.fingerprint.clone());
    LogprobsResponse { model, fingerprint, results: Vec::new(), usage }
}

/// Rejects a log-probability that JSON cannot represent.
pub(super) fn check_finite(index: usize, scores: &Scores) -> Result<(), Failure> {
    match scores.logprobs.iter().position(|logprob| !logprob.is_finite()) {
        Some(position) => Err(problem::not_finite(index, position, scores.logprobs[position])),
        None => Ok(()),
    }
}

/// Adds the token counts of a query.
pub(super) fn add_usage(usage: &mut Usage, scores: &Scores) {
    usage.computed_tokens += scores.computed_tokens as u64;
    usage.cached_tokens += scores.cached_tokens as u64;
    usage.scored_tokens += scores.logprobs.len() as u64;
}

/// Returns the result of a query with this index.
pub(super) fn result(app: &App, plan: &QueryPlan, index: usize, scores: Scores) -> QueryResult {
    let maker = ResultMaker { app, plan, index };
    let result = QueryResult {
        id: plan.id(index).map(str::to_owned),
        pair: plan.pair(index),
        sum: scores.sum(),
        tokens: scores.logprobs.len(),
        cached_tokens: scores.cached_tokens,
        overlap: maker.overlap(),
        ..QueryResult::default()
    };
    if plan.format.has_tokens { maker.with_tokens(result, scores) } else { result }
}

impl QueryPlan {
    /// Returns the size of the job that makes and writes a query's result.
    pub(super) fn result_size(&self, index: usize) -> JobSize {
        let top = usize::from(self.options.top);
        let EncodedTarget { tokens, text, .. } = self.target(index);
        let (listed, text) = match self.format.has_tokens {
            true => (tokens.len(), text.as_ref().map_or(0, String::len)),
            false => (0, 0),
        };
        let fixed = RESULT_BYTES + 2 * self.id(index).map_or(0, str::len);
        JobSize {
            bytes: fixed + listed * (1 + top) * TOKEN_BYTES + text,
            memory: fixed + listed * (DETAIL_BYTES + top * ALTERNATIVE_BYTES) + text * TEXT_BYTES,
        }
    }
}

/// The maker of one query's result.
struct ResultMaker<'a> {
    app: &'a App,
    plan: &'a QueryPlan,
    index: usize,
}

impl ResultMaker<'_> {
    fn target(&self) -> &EncodedTarget {
        self.plan.target(self.index)
    }

    /// Returns the length of the context's part of the first token.
    fn overlap(&self) -> Option<usize> {
        let EncodedTarget { overlap, text, .. } = self.target();
        let (overlap, text) = ((*overlap)?, text.as_deref().unwrap_or_default());
        Some(match self.plan.format.offset_unit {
            OffsetUnit::Bytes => overlap,
            OffsetUnit::Chars => text[..overlap].chars().count(),
        })
    }

    /// Adds the details of each token to a result.
    fn with_tokens(&self, result: QueryResult, scores: Scores) -> QueryResult {
        let Scores { logprobs, positions, .. } = scores;
        let PositionOptions { top, rank, entropy, subset } = &self.plan.options;
        let has_top = *top > 0;
        let tokens = &self.target().tokens;
        let mut result = QueryResult {
            token_ids: Some(tokens.clone()),
            logprobs: Some(logprobs),
            offsets: self.offsets(),
            ranks: rank.then(|| positions.iter().filter_map(|position| position.rank).collect()),
            entropies: entropy.then(|| positions.iter().filter_map(|position| position.entropy).collect()),
            subset_logprobs: subset.as_ref().map(|_| positions.iter().filter_map(|position| position.subset).collect()),
            ..result
        };
        match self.plan.format.texts {
            TokenText::Strings => {
                result.texts = Some(self.texts());
                result.top_texts = has_top.then(|| self.top_texts(&positions));
            }
            TokenText::Bytes => {
                let bytes = |token| self.app.codec.piece(token).bytes;
                result.bytes = Some(tokens.iter().copied().map(bytes).collect());
                let top_bytes =
                    |position: &PositionDetails| position.top.iter().map(|&(token, _)| bytes(token)).collect();
                result.top_bytes = has_top.then(|| positions.iter().map(top_bytes).collect());
            }
            TokenText::None => {}
        }
        result.top = has_top.then(|| positions.into_iter().map(|position| position.top).collect());
        result
    }

    /// Returns each token's range in the target, in the requested unit.
    fn offsets(&self) -> Option<Vec<[usize; 2]>> {
        let EncodedTarget { offsets, text, overlap, .. } = self.target();
        let (mut offsets, overlap) = (offsets.clone()?, overlap.unwrap_or(0));
        let text = text.as_deref().unwrap_or_default();
        let to_unit: Box<dyn Fn(usize) -> usize> = match self.plan.format.offset_unit {
            OffsetUnit::Bytes => Box::new(move |byte| byte.saturating_sub(overlap)),
            OffsetUnit::Chars => {
                let chars = char_indices(text);
                Box::new(move |byte| chars[byte].saturating_sub(chars[overlap]))
            }
        };
        for offset in offsets.as_flattened_mut() {
            *offset = to_unit(*offset);
        }
        Some(offsets)
    }

    /// Returns each token's text.
    fn texts(&self) -> Vec<String> {
        let EncodedTarget { tokens, text, offsets, .. } = self.target();
        match (text, offsets) {
            (Some(text), Some(offsets)) => divide(self.app.codec.as_ref(), text, tokens, || offsets.clone()),
            _ => {
                let mut texts = self.plan.texts_after_context(self.app, self.index);
                tokens.iter().map(|&token| texts.push(token)).collect()
            }
        }
    }

    /// Returns the text that each alternative would have at its position.
    fn top_texts(&self, positions: &[PositionDetails]) -> Vec<Vec<String>> {
        let mut texts = self.plan.texts_after_context(self.app, self.index);
        let mut top_texts = Vec::with_capacity(positions.len());
        for (&token, position) in self.target().tokens.iter().zip(positions) {
            top_texts.push(position.top.iter().map(|&(alternative, _)| texts.peek(alternative)).collect());
            texts.push(token);
        }
        top_texts
    }
}

/// Returns the number of characters before each byte of a text, and before its end.
fn char_indices(text: &str) -> Vec<usize> {
    let mut indices = Vec::with_capacity(text.len() + 1);
    for (index, char) in text.chars().enumerate() {
        indices.extend(std::iter::repeat_n(index, char.len_utf8()));
    }
    indices.push(text.chars().count());
    indices
}
