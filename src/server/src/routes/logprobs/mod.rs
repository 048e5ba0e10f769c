//! `POST /logprobs`: read, parse, tokenize, admit, score, respond.
//!
//! Start with `logprobs`, the handler. `prepare` turns the request into queries, and `result` turns their scores into
//! results. The response is JSON, unless the client accepts NDJSON (`stream`) or Arrow (`arrow`).

#[cfg(feature = "arrow")]
mod arrow;
mod encoded_pairs;
mod form;
mod prepare;
mod result;
mod stream;

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{ARROW_STREAM, Detail, LogprobsRequest, NDJSON, TokenText};
use surprisal_engine::{Query, Scores};

use self::form::RequestForm;
use self::prepare::{LogprobsSubmission, ResultLabel, prepare};
use super::context::RequestContext;
use super::parts::JsonList;
use super::response::{accepts, respond};
use crate::app::App;
use crate::problem::{self, Failure};

/// Answers a request. Dropping the future, as happens when the client disconnects, drops the queries and the permit.
pub(super) async fn logprobs(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let is_streamed = accepts(request.headers(), NDJSON);
    let is_arrow = !is_streamed && cfg!(feature = "arrow") && accepts(request.headers(), ARROW_STREAM);
    let prepare = move |app: &App, request, client| {
        let request = if is_arrow { for_columns(request)? } else { request };
        prepare(app, request, client)
    };
    let submission = context.read(request, prepare).await?;
    let permit = context.admit_work(submission.queries.len(), submission.tokens)?;
    if is_streamed {
        return Ok(stream::respond(context, submission, permit));
    }
    let LogprobsSubmission { form, queries, labels, tokens } = submission;
    let scores = score(&context.app, form, queries).await?;
    let envelope = result::envelope(&context.app, &scores)?;
    let items: Vec<(ResultLabel, Scores)> = labels.into_iter().zip(scores).collect();
    #[cfg(feature = "arrow")]
    if is_arrow {
        return respond(context, tokens, permit, arrow::ArrowResponse::new(&envelope, items)?).await;
    }
    let size = |(label, scores): &(ResultLabel, Scores)| label.size(scores.logprobs.len());
    let make = |app: &App, (label, scores)| result::result(app, label, scores);
    let list = JsonList::inside(&envelope, "results", items, size, make)?;
    respond(context, tokens, permit, list).await
}

/// Returns the request with the details that the Arrow columns need. Rejects alternatives, which would need a list in
/// each row.
fn for_columns(request: LogprobsRequest) -> Result<LogprobsRequest, Failure> {
    if request.top > 0 {
        return Err(problem::unsupported_value("top", request.top, "0 for an Arrow response"));
    }
    let texts = request.texts.or(Some(TokenText::None));
    Ok(LogprobsRequest { detail: Detail::Tokens, texts, ..request })
}

/// Submits all queries at once, so that the engine can batch them and share prefixes. The first failure cancels the
/// rest.
async fn score(app: &App, form: RequestForm, queries: Vec<Query>) -> Result<Vec<Scores>, Failure> {
    let pending: Vec<_> = queries.into_iter().map(|query| app.scorer.score(query)).collect();
    let mut scores = Vec::with_capacity(pending.len());
    for (index, pending) in pending.into_iter().enumerate() {
        let score = pending.await;
        scores.push(score.map_err(|error| problem::engine_failed(index, form.query_field(index), &error))?);
    }
    Ok(scores)
}
