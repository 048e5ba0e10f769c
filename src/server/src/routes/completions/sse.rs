//! `/v1/completions` as server-sent events: one event per generated token, with the text that became final with that
//! token.

use std::sync::Arc;

use axum::response::Response;
use surprisal_api::{Choice, CompletionsResponse, CompletionsUsage};

use super::{CompletionsSubmission, TokenCounts, empty_response, total_usage, usage};
use crate::app::App;
use crate::generation::batch::PendingCompletion;
use crate::generation::continuation::{Continuation, ContinuationEvent};
use crate::limits::admission::WorkPermit;
use crate::limits::window::SubmissionWindow;
use crate::problem::Failure;
use crate::routes::context::RequestContext;
use crate::routes::events::{event, last_events};
use crate::routes::gate::InFlight;
use crate::routes::pipe::PipeWriter;
use crate::routes::stream::{EVENT_STREAM, StreamedRequest};
use crate::token_texts::TokenTexts;

/// Streams the completions of a submission.
pub(super) fn respond(context: RequestContext, submission: CompletionsSubmission, permit: WorkPermit) -> Response {
    let in_flight = Arc::clone(&context.in_flight);
    let request = StreamedRequest { context, permit: Some(permit), tokens: Some(submission.tokens) };
    let work = |app, pipe| stream_all(app, Arc::new(submission), in_flight, pipe);
    request.respond(EVENT_STREAM, work, |_, result| Some(last_events(result.err())))
}

async fn stream_all(
    app: App,
    submission: Arc<CompletionsSubmission>,
    in_flight: Arc<InFlight>,
    pipe: Arc<PipeWriter>,
) -> Result<(), Failure> {
    let (head, batch) = (empty_response(&app, &submission.id), &submission.batch);
    let mut window = SubmissionWindow::new(batch.count(), |index| {
        let stream = CompletionStream {
            app: &app,
            submission: &submission,
            in_flight: &in_flight,
            pipe: &pipe,
            head: &head,
            index,
        };
        stream.run(batch.submit(&app, index))
    });
    let mut counts = vec![TokenCounts::default(); batch.count()];
    while let Some(done) = window.next().await {
        let (index, completion) = done?;
        counts[index] = completion;
    }
    if submission.stream_options.include_usage {
        let usage = Some(total_usage(batch, &counts));
        pipe.send(event(&CompletionsResponse { usage, ..head.clone() })?).await;
    }
    Ok(())
}

/// One completion, as a stream of events.
struct CompletionStream<'a> {
    app: &'a App,
    submission: &'a Arc<CompletionsSubmission>,
    in_flight: &'a Arc<InFlight>,
    pipe: &'a PipeWriter,
    /// Event without choices, from which all other events are made.
    head: &'a CompletionsResponse,
    index: usize,
}

impl CompletionStream<'_> {
    /// Sends the completion event by event; returns its index and its token counts.
    async fn run(self, pending: PendingCompletion<'_>) -> Result<(usize, TokenCounts), Failure> {
        let (format, index) = (self.submission.format, self.index);
        let counts = match pending {
            PendingCompletion::Continued(continuation) => self.run_continuation(continuation).await?,
            PendingCompletion::Scored(completion) => {
                let completion =
                    completion.await.map_err(|error| self.submission.batch.engine_failed(index, &error))?;
                let counts = TokenCounts { generated: 0, cached: completion.scores.cached_tokens };
                let make = move |app: &App, submission: &CompletionsSubmission| {
                    (format.choice(app, index, submission.batch.prompt(index), &completion), 0)
                };
                self.send_prompt(counts, make).await?;
                counts
            }
        };
        Ok((index, counts))
    }

    async fn run_continuation(&self, mut continuation: Box<Continuation>) -> Result<TokenCounts, Failure> {
        let (format, index, batch) = (self.submission.format, self.index, &self.submission.batch);
        let (mut offset, mut counts) = (0, TokenCounts::default());
        let mut texts = TokenTexts::after(&self.app.codec, &batch.prompt(index).tokens);
        // The first event has the ids of the prompt.
        let mut prompt_token_ids = format.token_ids.then(|| batch.prompt(index).tokens.clone());
        while let Some(event) = continuation.next().await.map_err(|error| batch.engine_failed(index, &error))? {
            match event {
                ContinuationEvent::Scores(scores) => {
                    counts.cached = scores.cached_tokens;
                    if format.echo || format.prompt_logprobs.is_some() {
                        let make = move |app: &App, submission: &CompletionsSubmission| {
                            format.prompt_choice(app, index, submission.batch.prompt(index), &scores)
                        };
                        offset = self.send_prompt(counts, make).await?;
                        prompt_token_ids = None;
                    }
                }
                ContinuationEvent::Token { token, text, end } => {
                    counts.generated += 1;
                    let token_ids = format.token_ids.then(|| vec![token.id]);
                    let (logprobs, end_offset) = format.tokens(&mut texts, &[token], offset);
                    offset = end_offset;
                    let choice = Choice {
                        index,
                        text,
                        logprobs,
                        finish_reason: end.as_ref().map(|end| end.finish_reason().to_owned()),
                        stop_reason: format.stop_reason(self.app, end.as_ref()),
                        prompt_logprobs: None,
                        token_ids,
                        prompt_token_ids: prompt_token_ids.take(),
                    };
                    self.pipe.send(event_of(self.head, choice, self.usage(counts))?).await;
                }
            }
        }
        Ok(counts)
    }

    /// Returns the usage so far, for events that have it.
    fn usage(&self, counts: TokenCounts) -> Option<CompletionsUsage> {
        let CompletionsSubmission { batch, stream_options, .. } = self.submission.as_ref();
        let is_continuous = stream_options.include_usage && stream_options.continuous_usage_stats;
        is_continuous.then(|| usage(batch.prompt(self.index).tokens.len(), counts))
    }

    /// Sends a choice for the whole prompt, which is made off the reactor if the prompt is large. Returns the offset of
    /// the text that follows the prompt, which `make` returns along with the choice.
    async fn send_prompt(
        &self,
        counts: TokenCounts,
        make: impl FnOnce(&App, &CompletionsSubmission) -> (Choice, usize) + Send + 'static,
    ) -> Result<usize, Failure> {
        let (submission, head, usage) = (Arc::clone(self.submission), self.head.clone(), self.usage(counts));
        let size = submission.format.prompt_size(submission.batch.prompt(self.index));
        let reservation = self.pipe.reserve(size.memory).await;
        let made = self.in_flight.offload(self.app, size, move |app| {
            let (choice, offset) = make(app, &submission);
            Ok((event_of(&head, choice, usage)?, offset))
        });
        let (bytes, offset) = made.await?;
        reservation.send(bytes);
        Ok(offset)
    }
}

/// Returns the event of one choice.
fn event_of(head: &CompletionsResponse, choice: Choice, usage: Option<CompletionsUsage>) -> Result<Vec<u8>, Failure> {
    event(&CompletionsResponse { choices: vec![choice], usage, ..head.clone() })
}
