//! The NDJSON response of `/logprobs`: each result as soon as it is ready, and the usage at the end.

use std::sync::Arc;

use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use surprisal_api::{NDJSON, StreamLine, Usage};

use super::prepare::LogprobsSubmission;
use super::result::result;
use crate::app::{App, TOKEN_BYTES};
use crate::limits::admission::Permit;
use crate::problem::{self, Failure};
use crate::routes::context::RequestContext;
use crate::routes::gate::InFlight;
use crate::routes::stream::{LineSender, StreamedRequest, send};

/// Streams the results of a submission.
pub(super) fn respond(context: RequestContext, submission: LogprobsSubmission, permit: Permit) -> Response {
    let in_flight = Arc::clone(&context.in_flight);
    let last_line = |app: &App, result| {
        let card = app.model();
        let last = match result {
            Ok(usage) => StreamLine::End { model: card.id.clone(), fingerprint: card.fingerprint.clone(), usage },
            Err(problem) => StreamLine::Problem(problem),
        };
        line(&last).unwrap_or_default()
    };
    let request = StreamedRequest { context, permit, tokens: submission.tokens };
    request.respond(NDJSON, |app, lines| score(app, submission, in_flight, lines), last_line)
}

/// Submits all queries at once, and sends each result as soon as its scores are ready.
async fn score(
    app: App,
    submission: LogprobsSubmission,
    in_flight: Arc<InFlight>,
    lines: LineSender,
) -> Result<Usage, Failure> {
    let LogprobsSubmission { form, queries, labels, .. } = submission;
    let mut labels: Vec<_> = labels.into_iter().map(Some).collect();
    let scores = queries.into_iter().map(|query| app.scorer.score(query));
    let numbered = scores.enumerate().map(|(index, scores)| async move { (index, scores.await) });
    let mut pending: FuturesUnordered<_> = numbered.collect();
    let mut usage = Usage::default();
    while let Some((index, scores)) = pending.next().await {
        let scores = scores.map_err(|error| problem::engine_failed(index, form.query_field(index), &error))?;
        let Some(label) = labels[index].take() else { continue };
        let bytes = scores.logprobs.len() * (1 + usize::from(label.options.top)) * TOKEN_BYTES;
        let written = app.offload(Arc::clone(&in_flight), bytes, move |app| {
            let result = result(app, index, label, scores, &mut usage)?;
            Ok((line(&StreamLine::Result { index, result })?, usage))
        });
        let bytes;
        (bytes, usage) = written.await?;
        send(&lines, bytes).await;
    }
    Ok(usage)
}

fn line(line: &StreamLine) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec(line).map_err(problem::serialization_failed)?;
    bytes.push(b'\n');
    Ok(bytes)
}
