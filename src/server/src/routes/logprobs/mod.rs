//! `POST /logprobs`: read, parse, tokenize, admit, score, respond.
//!
//! Start with `logprobs`, the handler. `prepare` turns the request into a plan, `plan` builds each query when it is
//! submitted, and `result` turns scores into results. The response is JSON, unless the client accepts NDJSON (`stream`)
//! or Arrow (`arrow`).

#[cfg(feature = "arrow")]
mod arrow;
mod encoded_pairs;
mod form;
mod plan;
mod prepare;
mod result;
mod stream;

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{ARROW_STREAM, Detail, LogprobsRequest, NDJSON, TokenText, Usage};
use surprisal_engine::Scores;

use self::plan::QueryPlan;
use self::prepare::{check, prepare};
use self::result::{add_usage, check_finite};
use super::context::RequestContext;
use super::parts::JsonList;
use super::response::{accepts, respond};
use crate::app::App;
use crate::limits::window::{NumberedResults, SubmissionWindow};
use crate::problem::{self, Failure};

/// Answers a request. Dropping the future, as happens when the client disconnects, drops the queries and the permit.
pub(super) async fn logprobs(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let is_streamed = accepts(request.headers(), NDJSON);
    let is_arrow = !is_streamed && cfg!(feature = "arrow") && accepts(request.headers(), ARROW_STREAM);
    let check = move |app: &App, request, client| {
        let request = if is_arrow { for_columns(request)? } else { request };
        let checked = check(app, request, client)?;
        let size = checked.size();
        Ok((checked, size))
    };
    let plan = context.read_in_steps(request, check, prepare).await?;
    let permit = context.admit_work(plan.len(), plan.tokens)?;
    if is_streamed {
        return Ok(stream::respond(context, plan, permit));
    }
    let (items, usage) = score(&context.app, &plan).await?;
    let (tokens, plan, envelope) = (plan.tokens, Arc::new(plan), result::envelope(&context.app, usage));
    #[cfg(feature = "arrow")]
    if is_arrow {
        return respond(context, tokens, permit, arrow::ArrowResponse::new(&envelope, plan, items)?).await;
    }
    let sized = Arc::clone(&plan);
    let size = move |&(index, _): &(usize, Scores)| sized.result_size(index);
    let make = move |app: &App, (index, scores)| result::result(app, &plan, index, scores);
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

/// Scores the queries of a plan. Returns their indices and scores in the order of the request, and the usage. The first
/// failure cancels the rest.
async fn score(app: &App, plan: &QueryPlan) -> Result<(Vec<(usize, Scores)>, Usage), Failure> {
    let mut window = SubmissionWindow::new(plan.len(), |submitted| submit(app, plan, submitted));
    let (mut items, mut usage) = (NumberedResults::default(), Usage::default());
    while let Some((index, scores)) = window.next().await {
        let scores = scores?;
        add_usage(&mut usage, &scores);
        items.insert(index, scores);
    }
    Ok((items.into_list(), usage))
}

/// Submits the query that comes after `submitted` others to the engine at once. The future waits for its index and its
/// scores.
fn submit<'a>(
    app: &'a App,
    plan: &QueryPlan,
    submitted: usize,
) -> impl Future<Output = (usize, Result<Scores, Failure>)> + use<'a> {
    let (index, form) = (plan.submission(submitted), plan.form);
    let pending = app.scorer.score(plan.query(index));
    async move {
        let scores = pending.await.map_err(|error| problem::engine_failed(index, form.query_field(index), &error));
        (index, scores.and_then(|scores| check_finite(index, &scores).map(|()| scores)))
    }
}
