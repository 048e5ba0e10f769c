//! `/v1/completions` as server-sent events: one event per generated token, with the text that became final with that
//! token.

use std::sync::Arc;

use axum::response::Response;
use futures_util::future::try_join_all;
use serde::Serialize;
use surprisal_api::{Choice, CompletionsResponse, Problem};

use super::choice::end_offset;
use super::{CompletionsSubmission, empty_response, usage};
use crate::app::{App, TOKEN_BYTES};
use crate::generation::batch::PendingCompletion;
use crate::generation::continuation::{Continuation, ContinuationEvent};
use crate::limits::admission::Permit;
use crate::problem::{self, Failure};
use crate::routes::context::RequestContext;
use crate::routes::gate::InFlight;
use crate::routes::stream::{LineSender, StreamedRequest, send};

/// Streams the completions of a submission.
pub(super) fn respond(context: RequestContext, submission: CompletionsSubmission, permit: Permit) -> Response {
    let in_flight = Arc::clone(&context.in_flight);
    let request = StreamedRequest { context, permit, tokens: submission.tokens };
    let work = |app, lines| stream_all(app, Arc::new(submission), in_flight, lines);
    request.respond("text/event-stream", work, |_, result| last_events(result.err()))
}

/// Returns the last events: the problem, if there is one, and `[DONE]`.
fn last_events(problem: Option<Problem>) -> Vec<u8> {
    let mut bytes = problem.map(error_event).unwrap_or_default();
    bytes.extend_from_slice(b"data: [DONE]\n\n");
    bytes
}

/// Returns a problem as an error in OpenAI's format, which also contains the whole problem.
fn error_event(problem: Problem) -> Vec<u8> {
    let error = serde_json::json!({"message": problem.detail, "type": problem.kind, "problem": problem});
    event(&serde_json::json!({"error": error})).unwrap_or_default()
}

async fn stream_all(
    app: App,
    submission: Arc<CompletionsSubmission>,
    in_flight: Arc<InFlight>,
    lines: LineSender,
) -> Result<(), Failure> {
    let (head, batch) = (empty_response(&app), &submission.batch);
    let mut streams = Vec::with_capacity(batch.count());
    for index in 0..batch.count() {
        let stream = CompletionStream {
            app: &app,
            submission: &submission,
            in_flight: &in_flight,
            lines: &lines,
            head: &head,
            index,
        };
        // All completions are submitted before the first is awaited, so that the engine can batch them.
        streams.push(stream.run(batch.submit(&app, index)));
    }
    let token_counts = try_join_all(streams).await?;
    if submission.include_usage {
        let usage = Some(usage(batch, token_counts.iter().sum()));
        send(&lines, event(&CompletionsResponse { usage, ..head.clone() })?).await;
    }
    Ok(())
}

/// One completion, as a stream of events.
struct CompletionStream<'a> {
    app: &'a App,
    submission: &'a Arc<CompletionsSubmission>,
    in_flight: &'a Arc<InFlight>,
    lines: &'a LineSender,
    /// Event without choices, from which all other events are made.
    head: &'a CompletionsResponse,
    index: usize,
}

impl CompletionStream<'_> {
    /// Sends the completion event by event; returns the number of generated tokens.
    async fn run(self, pending: PendingCompletion<'_>) -> Result<usize, Failure> {
        let (format, index) = (self.submission.format, self.index);
        match pending {
            PendingCompletion::Continued(continuation) => self.run_continuation(continuation).await,
            PendingCompletion::Scored(completion) => {
                let completion =
                    completion.await.map_err(|error| self.submission.batch.engine_failed(index, &error))?;
                self.send_prompt(move |app, submission| {
                    format.choice(app, index, submission.batch.prompt(index), &completion)
                })
                .await?;
                Ok(0)
            }
        }
    }

    async fn run_continuation(&self, mut continuation: Box<Continuation>) -> Result<usize, Failure> {
        let (format, index, batch) = (self.submission.format, self.index, &self.submission.batch);
        let (mut offset, mut count) = (0, 0);
        while let Some(event) = continuation.next().await.map_err(|error| batch.engine_failed(index, &error))? {
            match event {
                ContinuationEvent::Scores(scores) if format.echo || format.prompt_logprobs.is_some() => {
                    let make = move |app: &App, submission: &CompletionsSubmission| {
                        format.prompt_choice(app, index, submission.batch.prompt(index), &scores)
                    };
                    offset = self.send_prompt(make).await?;
                }
                ContinuationEvent::Scores(_) => {}
                ContinuationEvent::Token { token, text, end } => {
                    count += 1;
                    let logprobs = format.tokens(self.app, &[token], offset);
                    offset = logprobs.as_ref().map_or(0, end_offset);
                    let finish_reason = end.map(|end| end.finish_reason().to_owned());
                    self.send(Choice { index, text, logprobs, finish_reason, prompt_logprobs: None }).await?;
                }
            }
        }
        Ok(count)
    }

    async fn send(&self, choice: Choice) -> Result<(), Failure> {
        send(self.lines, event(&CompletionsResponse { choices: vec![choice], ..self.head.clone() })?).await;
        Ok(())
    }

    /// Sends a choice for the whole prompt, which is made off the reactor if the prompt is large. Returns the offset of
    /// the text that follows the prompt.
    async fn send_prompt(
        &self,
        make: impl FnOnce(&App, &CompletionsSubmission) -> Choice + Send + 'static,
    ) -> Result<usize, Failure> {
        let (submission, head) = (Arc::clone(self.submission), self.head.clone());
        let top = submission.format.logprobs.max(submission.format.prompt_logprobs).unwrap_or(0);
        let bytes = submission.batch.prompt(self.index).tokens.len() * (1 + usize::from(top)) * TOKEN_BYTES;
        let made = self.app.offload(Arc::clone(self.in_flight), bytes, move |app| {
            let choice = make(app, &submission);
            let offset = choice.logprobs.as_ref().map_or(0, end_offset);
            Ok((event(&CompletionsResponse { choices: vec![choice], ..head })?, offset))
        });
        let (bytes, offset) = made.await?;
        send(self.lines, bytes).await;
        Ok(offset)
    }
}

fn event(event: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, event).map_err(problem::serialization_failed)?;
    bytes.extend_from_slice(b"\n\n");
    Ok(bytes)
}
