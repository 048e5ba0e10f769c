//! `POST /v1/completions` as vLLM answers it: prompts scored, continued, or both.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use surprisal_api::{CompletionsRequest, CompletionsResponse, CompletionsUsage};
use surprisal_engine::PositionOptions;

use super::InFlight;
use super::choice::Form;
use super::continuation::Written;
use super::meta::json;
use super::sse;
use super::stream::Held;
use super::work::{Wish, Work, tokenise};
use crate::app::TOKEN_BYTES;
use crate::client::Client;
use crate::prepare::check_top;
use crate::problem::{self, Failure};
use crate::{App, body};

/// OpenAI's default of `max_tokens`.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// A request whose prompts are tokens.
pub(super) struct Asked {
    pub(super) work: Work,
    pub(super) form: Form,
    pub(super) stream: bool,
    /// Whether a stream ends with the token counts.
    pub(super) usage: bool,
    /// The room it takes.
    pub(super) tokens: u32,
}

pub(super) async fn completions(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    Extension(in_flight): Extension<Arc<InFlight>>,
    request: Request,
) -> Result<Response, Failure> {
    let start = Instant::now();
    let bytes = body::read(&app, client, request).await?;
    let held = Arc::clone(&in_flight);
    let asked = app.offload(held, bytes.len(), move |app| prepare(app, body::parse(&bytes)?, client)).await?;
    let tokens = asked.tokens;
    let permit = app.admission.admit(client.account(), tokens)?;
    if asked.stream {
        return Ok(sse::completions(app, asked, Held { permit, in_flight, start }));
    }
    let written = asked.work.run(&app).await?;
    let bytes = tokens as usize * TOKEN_BYTES;
    let response = app.offload(in_flight, bytes, move |app| json(&answer(app, &asked, &written))).await?;
    app.metrics.count_answer(start.elapsed().as_secs_f64(), tokens);
    Ok(response)
}

fn prepare(app: &App, request: CompletionsRequest, client: Client) -> Result<Asked, Failure> {
    app.check_model(request.model.as_deref())?;
    check_offered(&request)?;
    let form = Form { echo: request.echo, logprobs: request.logprobs, prompt_logprobs: request.prompt_logprobs };
    let each = request.n.unwrap_or(1) as usize;
    let wish = Wish {
        length: request.max_tokens,
        default_length: DEFAULT_MAX_TOKENS,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        seed: request.seed,
        stop: request.stop,
        stop_token_ids: request.stop_token_ids,
        ignore_eos: request.ignore_eos,
        top: form.logprobs.unwrap_or(0),
        ..Wish::default()
    };
    let writing = wish.writing(app)?;
    let echoed = form.logprobs.filter(|_| form.echo);
    let top = echoed.max(form.prompt_logprobs);
    let rank = form.prompt_logprobs.is_some_and(|top| top > 0);
    let work = Work {
        name: "prompt",
        prompts: tokenise(app, request.prompt, "prompt", request.add_special_tokens)?,
        each,
        score_from: top.map(|_| 1),
        extras: PositionOptions { top: top.unwrap_or(0), rank, ..PositionOptions::default() },
        writing,
        turn: client.turn(request.priority),
    };
    let tokens = work.check(app)?;
    let usage = request.stream_options.is_some_and(|options| options.include_usage);
    Ok(Asked { work, form, stream: request.stream, usage, tokens })
}

/// Refuses what is not offered, so that no part of a request is silently dropped.
fn check_offered(request: &CompletionsRequest) -> Result<(), Failure> {
    check_top("logprobs", request.logprobs.unwrap_or(0))?;
    check_top("prompt_logprobs", request.prompt_logprobs.unwrap_or(0))?;
    if request.n == Some(0) {
        return Err(problem::out_of_range("n", "0", "at least 1"));
    }
    match request.best_of {
        Some(best_of) if best_of != request.n.unwrap_or(1) => {
            return Err(problem::no_effect("best_of", best_of, "as many as `n`"));
        }
        _ => {}
    }
    for (field, penalty) in
        [("presence_penalty", request.presence_penalty), ("frequency_penalty", request.frequency_penalty)]
    {
        if let Some(penalty) = penalty.filter(|&penalty| penalty != 0.0) {
            return Err(problem::no_effect(field, penalty, "0"));
        }
    }
    Ok(())
}

fn answer(app: &App, asked: &Asked, written: &[Written]) -> CompletionsResponse {
    let choice = |(index, written): (usize, &Written)| asked.form.choice(app, index, asked.work.prompt(index), written);
    CompletionsResponse {
        choices: written.iter().enumerate().map(choice).collect(),
        usage: Some(usage(&asked.work, written.iter().map(|written| written.tokens.len()).sum())),
        ..head(app)
    }
}

/// An answer, or a piece of one, without choices.
pub(super) fn head(app: &App) -> CompletionsResponse {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    CompletionsResponse {
        id: format!("cmpl-{:x}", now.as_nanos()),
        object: "text_completion".to_owned(),
        created: now.as_secs(),
        model: app.model().id.clone(),
        choices: Vec::new(),
        usage: None,
    }
}

pub(super) fn usage(work: &Work, completion_tokens: usize) -> CompletionsUsage {
    let prompt_tokens = work.prompts.iter().map(|prompt| prompt.tokens.len()).sum();
    CompletionsUsage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
}
