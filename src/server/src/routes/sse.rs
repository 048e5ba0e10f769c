//! `/v1/completions` as server-sent events: each token as soon as its text is certain.

use std::sync::Arc;

use axum::response::Response;
use futures_util::future::try_join_all;
use serde::Serialize;
use surprisal_api::{Choice, CompletionsResponse, Problem};

use super::InFlight;
use super::choice::end_offset;
use super::completions::{Asked, head, usage};
use super::continuation::{Continuation, End, Piece};
use super::stream::{Held, Lines, respond, send};
use super::work;
use crate::App;
use crate::app::TOKEN_BYTES;
use crate::problem::{self, Failure};

/// Completions as events.
pub(super) fn completions(app: App, asked: Asked, held: Held) -> Response {
    let (tokens, in_flight) = (asked.tokens, Arc::clone(&held.in_flight));
    let work = |app, lines| all(app, Arc::new(asked), in_flight, lines);
    respond(app, "text/event-stream", held, tokens, work, |_, ended| end(ended.err()))
}

/// The last events.
fn end(problem: Option<Problem>) -> Vec<u8> {
    // As OpenAI has it; a client that looks for more finds the problem whole.
    let error = |problem: Problem| {
        let error = serde_json::json!({"message": problem.detail, "type": problem.kind, "problem": problem});
        event(&serde_json::json!({"error": error})).unwrap_or_default()
    };
    let mut bytes = problem.map(error).unwrap_or_default();
    bytes.extend_from_slice(b"data: [DONE]\n\n");
    bytes
}

async fn all(app: App, asked: Arc<Asked>, in_flight: Arc<InFlight>, lines: Lines) -> Result<(), Failure> {
    let (head, work) = (head(&app), &asked.work);
    // Everything is asked for at once.
    let one = |index| Stream { app: &app, asked: &asked, in_flight: &in_flight, lines: &lines, head: &head, index };
    let ask = |index| one(index).run(work.ask(&app, index));
    let counts = try_join_all((0..work.count()).map(ask).collect::<Vec<_>>()).await?;
    if asked.usage {
        let usage = Some(usage(work, counts.iter().sum()));
        send(&lines, event(&CompletionsResponse { usage, ..head.clone() })?).await;
    }
    Ok(())
}

/// One completion.
struct Stream<'a> {
    app: &'a App,
    asked: &'a Arc<Asked>,
    in_flight: &'a Arc<InFlight>,
    lines: &'a Lines,
    head: &'a CompletionsResponse,
    index: usize,
}

impl Stream<'_> {
    /// Sends it piece by piece; returns how many tokens were drawn.
    async fn run(self, asked: work::Asked<'_>) -> Result<usize, Failure> {
        let (form, index) = (self.asked.form, self.index);
        let failed = |error| {
            let work = &self.asked.work;
            problem::not_scored(index / work.each, work.field(index), &error)
        };
        let mut continuation: Box<Continuation> = match asked {
            work::Asked::Continued(continuation) => continuation,
            work::Asked::Scored(written) => {
                let written = written.await.map_err(failed)?;
                let whole = move |app: &App, asked: &Asked| form.choice(app, index, asked.work.prompt(index), &written);
                self.send_much(whole).await?;
                return Ok(0);
            }
        };
        let (mut offset, mut count) = (0, 0);
        while let Some(piece) = continuation.next().await.map_err(failed)? {
            match piece {
                Piece::Scores(scores) if form.echo || form.prompt_logprobs.is_some() => {
                    let prompt = move |app: &App, asked: &Asked| {
                        form.prompt_choice(app, index, asked.work.prompt(index), &scores)
                    };
                    offset = self.send_much(prompt).await?;
                }
                Piece::Scores(_) => {}
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
        send(self.lines, event(&CompletionsResponse { choices: vec![choice], ..self.head.clone() })?).await;
        Ok(())
    }

    /// What is said of a prompt is made where nobody waits for it. Returns where the text after it begins.
    async fn send_much(&self, make: impl FnOnce(&App, &Asked) -> Choice + Send + 'static) -> Result<usize, Failure> {
        let (asked, head) = (Arc::clone(self.asked), self.head.clone());
        let top = asked.form.logprobs.max(asked.form.prompt_logprobs).unwrap_or(0);
        let bytes = asked.work.prompt(self.index).tokens.len() * (1 + usize::from(top)) * TOKEN_BYTES;
        let made = self.app.offload(Arc::clone(self.in_flight), bytes, move |app| {
            let choice = make(app, &asked);
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
    serde_json::to_writer(&mut bytes, event).map_err(problem::unwritable)?;
    bytes.extend_from_slice(b"\n\n");
    Ok(bytes)
}
