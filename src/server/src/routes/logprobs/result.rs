//! The results of `/logprobs`: one per query, made from its scores.

use surprisal_api::{LogprobsResponse, QueryResult, Usage};
use surprisal_engine::{ModelCard, PositionOptions, Scores};

use super::prepare::ResultLabel;
use crate::problem::{self, Failure};

/// Returns the whole response, with a result for each label.
pub(super) fn response(
    card: &ModelCard,
    labels: Vec<ResultLabel>,
    scores: Vec<Scores>,
) -> Result<LogprobsResponse, Failure> {
    let mut usage = Usage::default();
    let mut results = Vec::with_capacity(scores.len());
    for (index, (label, scores)) in labels.into_iter().zip(scores).enumerate() {
        results.push(result(index, label, scores, &mut usage)?);
    }
    Ok(LogprobsResponse { model: card.id.clone(), fingerprint: card.fingerprint.clone(), results, usage })
}

/// Returns one query's result, and adds its token counts to `usage`.
pub(super) fn result(
    index: usize,
    label: ResultLabel,
    scores: Scores,
    usage: &mut Usage,
) -> Result<QueryResult, Failure> {
    if let Some(position) = scores.logprobs.iter().position(|logprob| !logprob.is_finite()) {
        return Err(problem::not_finite(index, position, scores.logprobs[position]));
    }
    let PositionOptions { top, rank, entropy, subset } = label.options;
    let sum = scores.sum();
    let positions = scores.positions;
    usage.computed_tokens += scores.computed_tokens as u64;
    usage.cached_tokens += scores.cached_tokens as u64;
    usage.scored_tokens += scores.logprobs.len() as u64;
    Ok(QueryResult {
        id: label.id,
        pair: label.pair,
        sum,
        tokens: scores.logprobs.len(),
        cached_tokens: scores.cached_tokens,
        ranks: rank.then(|| positions.iter().filter_map(|position| position.rank).collect()),
        entropies: entropy.then(|| positions.iter().filter_map(|position| position.entropy).collect()),
        subset_logprobs: subset.map(|_| positions.iter().filter_map(|position| position.subset).collect()),
        top: (top > 0).then(|| positions.into_iter().map(|position| position.top).collect()),
        logprobs: label.target.is_some().then_some(scores.logprobs),
        offsets: label.target.as_ref().and_then(|target| target.offsets.clone()),
        token_ids: label.target.map(|target| target.tokens),
    })
}
