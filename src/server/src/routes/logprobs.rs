//! `POST /logprobs`: read, parse, tokenise, admit, score, answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use surprisal_api::{ARROW_STREAM, Detail, LogprobsRequest, LogprobsResponse, NDJSON, QueryResult, Usage};
use surprisal_engine::{ModelCard, PositionOptions, Query, Scores};

use super::InFlight;
use super::meta::json;
use super::stream;
use crate::app::TOKEN_BYTES;
use crate::client::Client;
use crate::prepare::{Label, Prepared, prepare};
use crate::problem::{self, Failure};
use crate::{App, body};

/// Dropping this future, as happens when the client goes away, drops the queries and the permit.
pub(super) async fn logprobs(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    Extension(in_flight): Extension<Arc<InFlight>>,
    request: Request,
) -> Result<Response, Failure> {
    let start = Instant::now();
    let streamed = stream::accepts(request.headers(), NDJSON);
    let arrow = !streamed && cfg!(feature = "arrow") && stream::accepts(request.headers(), ARROW_STREAM);
    let bytes = body::read(&app, client, request).await?;
    let prepared = app
        .offload(Arc::clone(&in_flight), bytes.len(), move |app| {
            let request = body::parse(&bytes)?;
            prepare(app, if arrow { in_columns(request)? } else { request }, client)
        })
        .await?;
    let permit = app.admission.admit(client.account(), prepared.tokens)?;
    if streamed {
        return Ok(stream::results(app, prepared, stream::Held { permit, in_flight, start }));
    }
    let Prepared { form, queries, labels, tokens } = prepared;
    let scores = score(&app, queries, |index| form.query_field(index)).await?;
    let response = app
        .offload(in_flight, tokens as usize * TOKEN_BYTES, move |app| {
            let answer = answer(app.model(), labels, scores)?;
            #[cfg(feature = "arrow")]
            if arrow {
                return super::arrow::answer(&answer);
            }
            json(&answer)
        })
        .await?;
    app.metrics.count_answer(start.elapsed().as_secs_f64(), tokens);
    Ok(response)
}

/// A request whose answer is columns: a row a token, and no lists within.
fn in_columns(request: LogprobsRequest) -> Result<LogprobsRequest, Failure> {
    if request.top > 0 {
        return Err(problem::no_effect("top", request.top, "0 in an answer of columns"));
    }
    Ok(LogprobsRequest { detail: Detail::Tokens, ..request })
}

/// Asks everything at once, so that the engine can batch it and share prefixes; the first failure drops the rest.
async fn score(app: &App, queries: Vec<Query>, field: impl Fn(usize) -> String) -> Result<Vec<Scores>, Failure> {
    let asked: Vec<_> = queries.into_iter().map(|query| app.scorer.score(query)).collect();
    let mut scores = Vec::with_capacity(asked.len());
    for (index, answer) in asked.into_iter().enumerate() {
        scores.push(answer.await.map_err(|error| problem::not_scored(index, field(index), &error))?);
    }
    Ok(scores)
}

fn answer(card: &ModelCard, labels: Vec<Label>, scores: Vec<Scores>) -> Result<LogprobsResponse, Failure> {
    let mut usage = Usage::default();
    let mut results = Vec::with_capacity(scores.len());
    for (index, (label, scores)) in labels.into_iter().zip(scores).enumerate() {
        results.push(result(index, label, scores, &mut usage)?);
    }
    Ok(LogprobsResponse { model: card.id.clone(), fingerprint: card.fingerprint.clone(), results, usage })
}

/// One query's result; what it cost is added to `usage`.
pub(super) fn result(index: usize, label: Label, scores: Scores, usage: &mut Usage) -> Result<QueryResult, Failure> {
    if let Some(position) = scores.logprobs.iter().position(|logprob| !logprob.is_finite()) {
        return Err(problem::not_finite(index, position, scores.logprobs[position]));
    }
    let PositionOptions { top, rank, entropy, subset } = label.extras;
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
