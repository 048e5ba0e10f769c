//! The results of `/logprobs`: one per query, made from its scores.

use surprisal_api::{LogprobsResponse, OffsetUnit, QueryResult, TokenText, Usage};
use surprisal_engine::{PositionDetails, PositionOptions, Scores};

use super::encoded_pairs::EncodedTarget;
use super::prepare::ResultLabel;
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

/// Returns the response without its results. Rejects scores that JSON cannot represent.
pub(super) fn envelope(app: &App, scores: &[Scores]) -> Result<LogprobsResponse, Failure> {
    let card = app.model();
    let mut usage = Usage::default();
    for (index, scores) in scores.iter().enumerate() {
        check_finite(index, scores)?;
        add_usage(&mut usage, scores);
    }
    let (model, fingerprint) = (card.id.clone(), card.fingerprint.clone());
    Ok(LogprobsResponse { model, fingerprint, results: Vec::new(), usage })
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

/// Returns one query's result.
pub(super) fn result(app: &App, label: ResultLabel, scores: Scores) -> QueryResult {
    let result = QueryResult {
        id: label.id.clone(),
        pair: label.pair,
        sum: scores.sum(),
        tokens: scores.logprobs.len(),
        cached_tokens: scores.cached_tokens,
        overlap: label.overlap(),
        ..QueryResult::default()
    };
    if label.format.has_tokens { label.with_tokens(app, result, scores) } else { result }
}

impl ResultLabel {
    /// Returns the size of the job that makes and writes a result with this number of tokens.
    pub(super) fn size(&self, tokens: usize) -> JobSize {
        let top = usize::from(self.options.top);
        let (listed, text) = match (self.format.has_tokens, &self.target.text) {
            (true, text) => (tokens, text.as_ref().map_or(0, String::len)),
            (false, _) => (0, 0),
        };
        let fixed = RESULT_BYTES + 2 * self.id.as_ref().map_or(0, String::len);
        JobSize {
            bytes: fixed + listed * (1 + top) * TOKEN_BYTES + text,
            memory: fixed + listed * (DETAIL_BYTES + top * ALTERNATIVE_BYTES) + text * TEXT_BYTES,
        }
    }

    /// Returns the length of the context's part of the first token.
    fn overlap(&self) -> Option<usize> {
        let (overlap, text) = (self.target.overlap?, self.target.text.as_deref().unwrap_or_default());
        Some(match self.format.offset_unit {
            OffsetUnit::Bytes => overlap,
            OffsetUnit::Chars => text[..overlap].chars().count(),
        })
    }

    /// Adds the details of each token to a result.
    fn with_tokens(self, app: &App, result: QueryResult, scores: Scores) -> QueryResult {
        let Scores { logprobs, positions, .. } = scores;
        let PositionOptions { top, rank, entropy, subset } = &self.options;
        let has_top = *top > 0;
        let mut result = QueryResult {
            token_ids: Some(self.target.tokens.clone()),
            logprobs: Some(logprobs),
            offsets: self.offsets(),
            ranks: rank.then(|| positions.iter().filter_map(|position| position.rank).collect()),
            entropies: entropy.then(|| positions.iter().filter_map(|position| position.entropy).collect()),
            subset_logprobs: subset.as_ref().map(|_| positions.iter().filter_map(|position| position.subset).collect()),
            ..result
        };
        match self.format.texts {
            TokenText::Strings => {
                result.texts = Some(self.texts(app));
                result.top_texts = has_top.then(|| self.top_texts(&positions));
            }
            TokenText::Bytes => {
                let bytes = |token| app.codec.piece(token).bytes;
                result.bytes = Some(self.target.tokens.iter().copied().map(bytes).collect());
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
        let mut offsets = self.target.offsets.clone()?;
        let text = self.target.text.as_deref().unwrap_or_default();
        let overlap = self.target.overlap.unwrap_or(0);
        let to_unit: Box<dyn Fn(usize) -> usize> = match self.format.offset_unit {
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
    fn texts(&self, app: &App) -> Vec<String> {
        let EncodedTarget { tokens, text, offsets, .. } = self.target.as_ref();
        match (text, offsets) {
            (Some(text), Some(offsets)) => divide(app.codec.as_ref(), text, tokens, || offsets.clone()),
            _ => {
                let mut texts = self.before.clone();
                tokens.iter().map(|&token| texts.push(token)).collect()
            }
        }
    }

    /// Returns the text that each alternative would have at its position.
    fn top_texts(&self, positions: &[PositionDetails]) -> Vec<Vec<String>> {
        let mut texts = self.before.clone();
        let mut top_texts = Vec::with_capacity(positions.len());
        for (&token, position) in self.target.tokens.iter().zip(positions) {
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
