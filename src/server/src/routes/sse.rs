//! `/v1/completions` as server-sent events: each token as soon as its text is certain.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::stream::unfold;
use serde::Serialize;
use surprisal_api::{Choice, CompletionsResponse, Problem};
use tokio::sync::mpsc;
use tracing::Instrument;

use super::choice::end_offset;
use super::completions::{Asked, head, usage};
use super::continuation::{Continuation, End, Piece};
use super::stream::{Held, last_of};
use super::work;
use crate::App;
use crate::problem::{self, Failure};

/// Events that may wait for a client that reads slowly.
const AHEAD: usize = 256;

type Lines = mpsc::Sender<Vec<u8>>;

/// Answers at once; the events follow from a task of their own, which ends when the client goes away.
pub(super) fn respond(app: App, asked: Asked, held: Held) -> Response {
    let (lines, receiver) = mpsc::channel(AHEAD);
    let work = async move {
        // Dropping the work drops its queries, which frees their blocks.
        tokio::select! {
            () = lines.closed() => app.metrics.count_abandoned(),
            () = write(&app, asked, held, &lines) => {}
        }
    };
    tokio::spawn(work.in_current_span());
    let lines = unfold(receiver, |mut lines| async move { Some((Ok::<_, Infallible>(lines.recv().await?), lines)) });
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")], Body::from_stream(lines))
        .into_response()
}

async fn write(app: &App, asked: Asked, held: Held, lines: &Lines) {
    let written = app.within_deadline(all(app, &asked, lines)).await;
    drop(held.permit);
    let problem = match written.and_then(|written| written) {
        Ok(()) => {
            app.metrics.count_answer(held.start.elapsed().as_secs_f64(), asked.tokens);
            None
        }
        Err(failure) => {
            app.metrics.count_problem(failure.name());
            Some(failure.into_problem())
        }
    };
    last_of(end(lines, problem)).await;
    drop(held.in_flight);
}

/// The last events.
async fn end(lines: &Lines, problem: Option<Problem>) {
    if let Some(problem) = problem {
        // As OpenAI has it; a client that looks for more finds the problem whole.
        let error = serde_json::json!({"message": problem.detail, "type": problem.kind, "problem": problem});
        let _ = send(lines, &serde_json::json!({"error": error})).await;
    }
    let _ = lines.send(b"data: [DONE]\n\n".to_vec()).await;
}

async fn all(app: &App, asked: &Asked, lines: &Lines) -> Result<(), Failure> {
    let head = head(app);
    let work = &asked.work;
    // Everything is asked for at once.
    let ask = |index| Stream { app, asked, lines, head: &head, index }.run(work.ask(app, index));
    let counts = try_join_all((0..work.count()).map(ask).collect::<Vec<_>>()).await?;
    if asked.usage {
        send(lines, &CompletionsResponse { usage: Some(usage(work, counts.iter().sum())), ..head.clone() }).await?;
    }
    Ok(())
}

/// One completion.
struct Stream<'a> {
    app: &'a App,
    asked: &'a Asked,
    lines: &'a Lines,
    head: &'a CompletionsResponse,
    index: usize,
}

impl Stream<'_> {
    /// Sends it piece by piece; returns how many tokens were drawn.
    async fn run(self, asked: work::Asked<'_>) -> Result<usize, Failure> {
        let (form, index, prompt) = (self.asked.form, self.index, self.asked.work.prompt(self.index));
        let failed = |error| {
            let work = &self.asked.work;
            problem::not_scored(index / work.each, work.field(index), &error)
        };
        let mut continuation: Box<Continuation> = match asked {
            work::Asked::Continued(continuation) => continuation,
            work::Asked::Scored(written) => {
                self.send(form.choice(self.app, index, prompt, &written.await.map_err(failed)?)).await?;
                return Ok(0);
            }
        };
        let (mut offset, mut count) = (0, 0);
        while let Some(piece) = continuation.next().await.map_err(failed)? {
            match piece {
                Piece::Scores(scores) => {
                    let choice = form.prompt_choice(self.app, index, prompt, &scores);
                    offset = choice.logprobs.as_ref().map_or(0, end_offset);
                    if form.echo || form.prompt_logprobs.is_some() {
                        self.send(choice).await?;
                    }
                }
                Piece::Token { token, text, end } => {
                    count += 1;
                    let logprobs = form.tokens(self.app, &[token], offset);
                    offset = logprobs.as_ref().map_or(0, end_offset);
                    let finish_reason = end.as_ref().map(|end: &End| end.reason().to_owned());
                    self.send(Choice { index, text, logprobs, finish_reason, prompt_logprobs: None }).await?;
                }
            }
        }
        Ok(count)
    }

    async fn send(&self, choice: Choice) -> Result<(), Failure> {
        send(self.lines, &CompletionsResponse { choices: vec![choice], ..self.head.clone() }).await
    }
}

/// A client that has gone away is noticed by `respond`.
async fn send(lines: &Lines, event: &impl Serialize) -> Result<(), Failure> {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, event).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        problem::internal()
    })?;
    bytes.extend_from_slice(b"\n\n");
    let _ = lines.send(bytes).await;
    Ok(())
}
