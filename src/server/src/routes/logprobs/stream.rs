//! The NDJSON response of `/logprobs`: each result as soon as it is ready, and the usage at the end.

use std::sync::Arc;

use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use surprisal_api::{NDJSON, StreamLine, Usage};

use super::prepare::LogprobsSubmission;
use super::result::{add_usage, check_finite, result};
use crate::app::App;
use crate::limits::admission::WorkPermit;
use crate::problem::{self, Failure};
use crate::routes::context::RequestContext;
use crate::routes::gate::InFlight;
use crate::routes::pipe::PipeWriter;
use crate::routes::response::json;
use crate::routes::stream::StreamedRequest;

/// Streams the results of a submission.
pub(super) fn respond(context: RequestContext, submission: LogprobsSubmission, permit: WorkPermit) -> Response {
    let in_flight = Arc::clone(&context.in_flight);
    let last_line = |app: &App, result| {
        let card = app.model();
        let last = match result {
            Ok(usage) => StreamLine::End { model: card.id.clone(), fingerprint: card.fingerprint.clone(), usage },
            Err(problem) => StreamLine::Problem(problem),
        };
        line(&last).ok()
    };
    let request = StreamedRequest { context, permit: Some(permit), tokens: Some(submission.tokens) };
    request.respond(NDJSON, |app, pipe| score(app, submission, in_flight, pipe), last_line)
}

/// Submits all queries at once, and sends each result as soon as its scores are ready.
async fn score(
    app: App,
    submission: LogprobsSubmission,
    in_flight: Arc<InFlight>,
    pipe: Arc<PipeWriter>,
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
        check_finite(index, &scores)?;
        add_usage(&mut usage, &scores);
        let size = label.size(scores.logprobs.len());
        let reservation = pipe.reserve(size.memory).await;
        let write = move |app: &App| line(&StreamLine::Result { index, result: result(app, label, scores) });
        reservation.send(in_flight.offload(&app, size, write).await?);
    }
    Ok(usage)
}

fn line(line: &StreamLine) -> Result<Vec<u8>, Failure> {
    let mut bytes = json(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}
