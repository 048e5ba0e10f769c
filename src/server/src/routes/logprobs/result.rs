//! The results of `/logprobs`: one per query, made from its scores.

use surprisal_api::{LogprobsResponse, OffsetUnit, QueryResult, TokenText, Usage};
use surprisal_engine::{PositionDetails, PositionOptions, Scores};

use super::encoded_pairs::EncodedTarget;
use super::prepare::ResultLabel;
use crate::app::App;
use crate::problem::{self, Failure};
use crate::token_texts::divide;

/// Returns the whole response, with a result for each label.
pub(super) fn response(app: &App, labels: Vec<ResultLabel>, scores: Vec<Scores>) -> Result<LogprobsResponse, Failure> {
    let card = app.model();
    let mut usage = Usage::default();
    let mut results = Vec::with_capacity(scores.len());
    for (index, (label, scores)) in labels.into_iter().zip(scores).enumerate() {
        results.push(result(app, index, label, scores, &mut usage)?);
    }
    Ok(LogprobsResponse { model: card.id.clone(), fingerprint: card.fingerprint.clone(), results, usage })
}

/// Returns one query's result, and adds its token counts to `usage`.
pub(super) fn result(
    app: &App,
    index: usize,
    label: ResultLabel,
    scores: Scores,
    usage: &mut Usage,
) -> Result<QueryResult, Failure> {
    if let Some(position) = scores.logprobs.iter().position(|logprob| !logprob.is_finite()) {
        return Err(problem::not_finite(index, position, scores.logprobs[position]));
    }
    usage.computed_tokens += scores.computed_tokens as u64;
    usage.cached_tokens += scores.cached_tokens as u64;
    usage.scored_tokens += scores.logprobs.len() as u64;
    let result = QueryResult {
        id: label.id.clone(),
        pair: label.pair,
        sum: scores.sum(),
        tokens: scores.logprobs.len(),
        cached_tokens: scores.cached_tokens,
        overlap: label.overlap(),
        ..QueryResult::default()
    };
    Ok(if label.format.has_tokens { label.with_tokens(app, result, scores) } else { result })
}

impl ResultLabel {
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
