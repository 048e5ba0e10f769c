//! `POST /v1/completions` in the format of OpenAI and vLLM: scores prompts, continues them, or does both.
//!
//! Start with `completions`, the handler. `choice` turns completions into choices, and `sse` streams them.

mod choice;
mod sse;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{CompletionsRequest, CompletionsResponse, CompletionsUsage};
use surprisal_engine::PositionOptions;

use self::choice::ChoiceFormat;
use super::context::RequestContext;
use super::response::json;
use crate::app::App;
use crate::generation::batch::{PromptBatch, tokenize_prompts};
use crate::generation::continuation::Completion;
use crate::generation::params::GenerationParams;
use crate::input::validate::check_top;
use crate::limits::client::Client;
use crate::problem::{self, Failure};

/// OpenAI's default for `max_tokens`.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// A checked request, ready for the engine.
struct CompletionsSubmission {
    batch: PromptBatch,
    format: ChoiceFormat,
    is_streamed: bool,
    /// `true` if a stream ends with the token counts.
    include_usage: bool,
    /// Number of tokens that admission counts for the request.
    tokens: u32,
}

pub(super) async fn completions(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let submission = context.read(request, prepare).await?;
    let tokens = submission.tokens;
    let permit = context.admit_tokens(tokens)?;
    if submission.is_streamed {
        return Ok(sse::respond(context, submission, permit));
    }
    let completions = submission.batch.run(&context.app).await?;
    context.respond(tokens, move |app| json(&response(app, &submission, &completions))).await
}

/// Checks a request and tokenizes its prompts.
fn prepare(app: &App, request: CompletionsRequest, client: Client) -> Result<CompletionsSubmission, Failure> {
    app.check_model(request.model.as_deref())?;
    check_supported(&request)?;
    let format =
        ChoiceFormat { echo: request.echo, logprobs: request.logprobs, prompt_logprobs: request.prompt_logprobs };
    let params = GenerationParams {
        max_tokens: request.max_tokens,
        default_max_tokens: DEFAULT_MAX_TOKENS,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        seed: request.seed,
        stop: request.stop,
        stop_token_ids: request.stop_token_ids,
        ignore_eos: request.ignore_eos,
        top: format.logprobs.unwrap_or(0),
        ..GenerationParams::default()
    };
    let generation = params.into_config(app)?;
    let echoed = format.logprobs.filter(|_| format.echo);
    let top = echoed.max(format.prompt_logprobs);
    let rank = format.prompt_logprobs.is_some_and(|top| top > 0);
    let batch = PromptBatch {
        field: "prompt",
        prompts: tokenize_prompts(app, request.prompt, "prompt", request.add_special_tokens)?,
        completions_per_prompt: request.n.unwrap_or(1) as usize,
        score_from: top.map(|_| 1),
        options: PositionOptions { top: top.unwrap_or(0), rank, ..PositionOptions::default() },
        generation,
        scheduling: client.scheduling(request.priority),
    };
    let tokens = batch.check(app)?;
    let include_usage = request.stream_options.is_some_and(|options| options.include_usage);
    Ok(CompletionsSubmission { batch, format, is_streamed: request.stream, include_usage, tokens })
}

/// Rejects unsupported values, so that no part of a request is silently ignored.
fn check_supported(request: &CompletionsRequest) -> Result<(), Failure> {
    check_top("logprobs", request.logprobs.unwrap_or(0))?;
    check_top("prompt_logprobs", request.prompt_logprobs.unwrap_or(0))?;
    if request.n == Some(0) {
        return Err(problem::out_of_range("n", "0", "at least 1"));
    }
    match request.best_of {
        Some(best_of) if best_of != request.n.unwrap_or(1) => {
            return Err(problem::unsupported_value("best_of", best_of, "equal to `n`"));
        }
        _ => {}
    }
    for (field, penalty) in
        [("presence_penalty", request.presence_penalty), ("frequency_penalty", request.frequency_penalty)]
    {
        if let Some(penalty) = penalty.filter(|&penalty| penalty != 0.0) {
            return Err(problem::unsupported_value(field, penalty, "0"));
        }
    }
    Ok(())
}

fn response(app: &App, submission: &CompletionsSubmission, completions: &[Completion]) -> CompletionsResponse {
    let CompletionsSubmission { batch, format, .. } = submission;
    let mut choices = Vec::with_capacity(completions.len());
    for (index, completion) in completions.iter().enumerate() {
        choices.push(format.choice(app, index, batch.prompt(index), completion));
    }
    let completion_tokens = completions.iter().map(|completion| completion.tokens.len()).sum();
    CompletionsResponse { choices, usage: Some(usage(batch, completion_tokens)), ..empty_response(app) }
}

/// Returns a response, or an event of a stream, without choices.
fn empty_response(app: &App) -> CompletionsResponse {
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

fn usage(batch: &PromptBatch, completion_tokens: usize) -> CompletionsUsage {
    let prompt_tokens = batch.prompt_tokens();
    CompletionsUsage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
}
