//! The NDJSON response of `/logprobs`: each result as soon as it is ready, and the usage at the end.

use std::sync::Arc;

use axum::response::Response;
use surprisal_api::{NDJSON, StreamLine, Usage};

use super::plan::QueryPlan;
use super::result::{add_usage, result};
use super::submit;
use crate::app::App;
use crate::limits::admission::WorkPermit;
use crate::limits::window::SubmissionWindow;
use crate::problem::Failure;
use crate::routes::context::RequestContext;
use crate::routes::gate::InFlight;
use crate::routes::pipe::PipeWriter;
use crate::routes::response::json;
use crate::routes::stream::StreamedRequest;

/// Streams the results of a plan.
pub(super) fn respond(context: RequestContext, plan: QueryPlan, permit: WorkPermit) -> Response {
    let in_flight = Arc::clone(&context.in_flight);
    let last_line = |app: &App, result| {
        let card = app.model();
        let last = match result {
            Ok(usage) => StreamLine::End { model: card.id.clone(), fingerprint: card.fingerprint.clone(), usage },
            Err(problem) => StreamLine::Problem(problem),
        };
        line(&last).ok()
    };
    let request = StreamedRequest { context, permit: Some(permit), tokens: Some(plan.tokens) };
    request.respond(NDJSON, |app, pipe| score(app, Arc::new(plan), in_flight, pipe), last_line)
}

/// Submits the queries, and sends each result as soon as its scores are ready.
async fn score(
    app: App,
    plan: Arc<QueryPlan>,
    in_flight: Arc<InFlight>,
    pipe: Arc<PipeWriter>,
) -> Result<Usage, Failure> {
    let mut window = SubmissionWindow::new(plan.len(), |submitted| submit(&app, &plan, submitted));
    let mut usage = Usage::default();
    while let Some((index, scores)) = window.next().await {
        let scores = scores?;
        add_usage(&mut usage, &scores);
        let size = plan.result_size(index);
        let reservation = pipe.reserve(size.memory).await;
        let plan = Arc::clone(&plan);
        let write = move |app: &App| line(&StreamLine::Result { index, result: result(app, &plan, index, scores) });
        reservation.send(in_flight.offload(&app, size, write).await?);
    }
    Ok(usage)
}

fn line(line: &StreamLine) -> Result<Vec<u8>, Failure> {
    let mut bytes = json(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}
