//! `/generate` as server-sent events: one event per generated token, each with the whole result so far.

use std::sync::Arc;

use axum::response::Response;

use super::GenerateSubmission;
use crate::app::App;
use crate::generation::batch::PendingCompletion;
use crate::generation::continuation::{Completion, Continuation};
use crate::limits::admission::WorkPermit;
use crate::limits::window::SubmissionWindow;
use crate::problem::Failure;
use crate::routes::context::RequestContext;
use crate::routes::events::{event, last_events};
use crate::routes::gate::InFlight;
use crate::routes::pipe::PipeWriter;
use crate::routes::stream::{EVENT_STREAM, StreamedRequest};

/// The approximate size of the largest event that is sent while earlier events are unsent, in bytes. A larger event is
/// skipped, because the next one also has its contents, so that a slow client cannot make the server hold many of them.
const MAX_QUEUED_EVENT_BYTES: usize = 16 * 1024;

/// Streams the results of a submission.
pub(super) fn respond(context: RequestContext, submission: GenerateSubmission, permit: WorkPermit) -> Response {
    let in_flight = Arc::clone(&context.in_flight);
    let request = StreamedRequest { context, permit: Some(permit), tokens: Some(submission.tokens) };
    let work = |app, pipe| stream_all(app, Arc::new(submission), in_flight, pipe);
    request.respond(EVENT_STREAM, work, |_, result| Some(last_events(result.err())))
}

async fn stream_all(
    app: App,
    submission: Arc<GenerateSubmission>,
    in_flight: Arc<InFlight>,
    pipe: Arc<PipeWriter>,
) -> Result<(), Failure> {
    let mut window = SubmissionWindow::new(submission.batch.count(), |index| {
        let stream = ResultStream { app: &app, submission: &submission, in_flight: &in_flight, pipe: &pipe, index };
        stream.run(submission.batch.submit(&app, index))
    });
    while let Some(done) = window.next().await {
        done?;
    }
    Ok(())
}

/// The result of one prompt, as a stream of events.
struct ResultStream<'a> {
    app: &'a App,
    submission: &'a Arc<GenerateSubmission>,
    in_flight: &'a Arc<InFlight>,
    pipe: &'a PipeWriter,
    index: usize,
}

impl ResultStream<'_> {
    async fn run(self, pending: PendingCompletion<'_>) -> Result<(), Failure> {
        match pending {
            PendingCompletion::Continued(continuation) => self.run_continuation(continuation).await,
            PendingCompletion::Scored(completion) => {
                let completion = completion.await;
                let completion = completion.map_err(|error| self.submission.batch.engine_failed(self.index, &error))?;
                self.send(completion, true).await?;
                Ok(())
            }
        }
    }

    async fn run_continuation(&self, mut continuation: Box<Continuation>) -> Result<(), Failure> {
        let (batch, index) = (&self.submission.batch, self.index);
        let mut completion = Completion::default();
        while let Some(event) = continuation.next().await.map_err(|error| batch.engine_failed(index, &error))? {
            completion.add(event);
            let finished = completion.end.is_some();
            if completion.tokens.is_empty() || !finished && self.is_skipped(&completion) {
                continue;
            }
            completion = self.send(completion, finished).await?;
        }
        Ok(())
    }

    /// Returns `true` if the next event is too large to be queued behind unsent events.
    fn is_skipped(&self, completion: &Completion) -> bool {
        let GenerateSubmission { batch, format, .. } = self.submission.as_ref();
        format.size(batch, self.index, completion).bytes > MAX_QUEUED_EVENT_BYTES && self.pipe.has_unsent()
    }

    /// Sends the result so far, which is made off the reactor if it is large. Returns the completion.
    async fn send(&self, completion: Completion, finished: bool) -> Result<Completion, Failure> {
        let (submission, index) = (Arc::clone(self.submission), self.index);
        let size = submission.format.size(&submission.batch, index, &completion);
        let reservation = self.pipe.reserve(size.memory).await;
        let made = self.in_flight.offload(self.app, size, move |app| {
            let GenerateSubmission { batch, format, ids, .. } = &*submission;
            let mut response = format.response(app, batch, index, &ids[index], &completion, finished);
            response.index = batch.field.is_list.then_some(index);
            Ok((event(&response)?, completion))
        });
        let (bytes, completion) = made.await?;
        reservation.send(bytes);
        Ok(completion)
    }
}
