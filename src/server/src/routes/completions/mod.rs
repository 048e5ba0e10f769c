//! `POST /v1/completions` in the format of OpenAI and vLLM: scores prompts, continues them, or does both.
//!
//! Start with `completions`, the handler. `choice` turns completions into choices, and `sse` streams them.

mod choice;
mod sse;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{CompletionsRequest, CompletionsResponse, CompletionsUsage, PromptTokensDetails, StreamOptions};
use surprisal_engine::PositionOptions;

use self::choice::ChoiceFormat;
use super::context::RequestContext;
use super::parts::JsonList;
use super::response::{random_id, respond};
use crate::app::App;
use crate::generation::batch::{PromptBatch, PromptField, tokenize_prompts};
use crate::generation::continuation::Completion;
use crate::generation::params::GenerationParams;
use crate::input::validate::{check_cache_salt, check_top};
use crate::limits::client::Client;
use crate::problem::{self, Failure};

/// OpenAI's default for `max_tokens`.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// A checked request, ready for the engine.
struct CompletionsSubmission {
    batch: PromptBatch,
    format: ChoiceFormat,
    is_streamed: bool,
    stream_options: StreamOptions,
    /// Identifier of the response.
    id: String,
    /// Number of tokens that admission counts for the request.
    tokens: u32,
}

pub(super) async fn completions(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let submission = context.read(request, prepare).await?;
    let tokens = submission.tokens;
    let permit = context.admit_work(submission.batch.count(), tokens)?;
    if submission.is_streamed {
        return Ok(sse::respond(context, submission, permit));
    }
    let items = submission.batch.run(&context.app).await?;
    let envelope = envelope(&context.app, &submission, &items);
    let submission = Arc::new(submission);
    let size = {
        let submission = Arc::clone(&submission);
        move |(index, completion): &(usize, Completion)| {
            submission.format.size(submission.batch.prompt(*index), completion)
        }
    };
    let make = move |app: &App, (index, completion): (usize, Completion)| {
        submission.format.choice(app, index, submission.batch.prompt(index), &completion)
    };
    respond(context, tokens, permit, JsonList::inside(&envelope, "choices", items, size, make)?).await
}

/// Checks a request and tokenizes its prompts.
fn prepare(app: &App, request: CompletionsRequest, client: Client) -> Result<CompletionsSubmission, Failure> {
    app.check_model(request.model.as_deref())?;
    check_supported(&request)?;
    let format = ChoiceFormat {
        echo: request.echo,
        logprobs: request.logprobs,
        prompt_logprobs: request.prompt_logprobs,
        tokens_as_ids: request.return_tokens_as_token_ids,
        token_ids: request.return_token_ids,
        ignore_eos: request.ignore_eos,
    };
    let params = GenerationParams {
        max_tokens_field: "max_tokens",
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
    let rank = format.prompt_logprobs.is_some_and(|top| top > 0 || app.scorer.has_position_details());
    let field = PromptField::new("prompt", &request.prompt);
    let batch = PromptBatch {
        field,
        prompts: tokenize_prompts(app, request.prompt, field, request.add_special_tokens)?,
        completions_per_prompt: request.n.unwrap_or(1) as usize,
        score_from: top.map(|_| 1),
        options: PositionOptions { top: top.unwrap_or(0), rank, ..PositionOptions::default() },
        generation,
        scheduling: client.scheduling(request.priority)?,
        namespace: client.namespace(request.cache_salt.as_deref()),
    };
    let tokens = batch.check(app)?;
    let stream_options = request.stream_options.unwrap_or_default();
    let id = format!("cmpl-{}", request.request_id.unwrap_or_else(random_id));
    Ok(CompletionsSubmission { batch, format, is_streamed: request.stream, stream_options, id, tokens })
}

/// Rejects unsupported values, so that no part of a request is silently ignored.
fn check_supported(request: &CompletionsRequest) -> Result<(), Failure> {
    check_top("logprobs", request.logprobs.unwrap_or(0))?;
    check_top("prompt_logprobs", request.prompt_logprobs.unwrap_or(0))?;
    check_cache_salt(request.cache_salt.as_deref())?;
    if request.n == Some(0) {
        return Err(problem::out_of_range("n", "0", "at least 1"));
    }
    if !request.stream && request.stream_options.unwrap_or_default() != StreamOptions::default() {
        return Err(problem::needs_stream("stream_options"));
    }
    match request.best_of {
        Some(best_of) if best_of != request.n.unwrap_or(1) => {
            Err(problem::unsupported_value("best_of", best_of, "equal to `n`"))
        }
        _ => Ok(()),
    }
}

/// Returns the response without its choices.
fn envelope(app: &App, submission: &CompletionsSubmission, completions: &[(usize, Completion)]) -> CompletionsResponse {
    let counts = completions.iter().map(|(_, completion)| TokenCounts {
        generated: completion.tokens.len(),
        cached: completion.scores.cached_tokens,
    });
    let counts: Vec<TokenCounts> = counts.collect();
    CompletionsResponse { usage: Some(total_usage(&submission.batch, &counts)), ..empty_response(app, &submission.id) }
}

/// Returns a response, or an event of a stream, without choices.
fn empty_response(app: &App, id: &str) -> CompletionsResponse {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    CompletionsResponse {
        id: id.to_owned(),
        object: "text_completion".to_owned(),
        created: now.as_secs(),
        model: app.model().id.clone(),
        system_fingerprint: app.model().fingerprint.clone(),
        choices: Vec::new(),
        usage: None,
    }
}

/// The token counts of one completion.
#[derive(Clone, Copy, Debug, Default)]
struct TokenCounts {
    generated: usize,
    /// Number of the prompt's tokens that were found in the prefix cache.
    cached: usize,
}

/// Returns the usage of all completions. A prompt counts once, with the cached tokens of its first completion.
fn total_usage(batch: &PromptBatch, counts: &[TokenCounts]) -> CompletionsUsage {
    let generated = counts.iter().map(|counts| counts.generated).sum();
    let cached = counts.iter().step_by(batch.completions_per_prompt).map(|counts| counts.cached).sum();
    usage(batch.prompt_tokens(), TokenCounts { generated, cached })
}

fn usage(prompt_tokens: usize, counts: TokenCounts) -> CompletionsUsage {
    CompletionsUsage {
        prompt_tokens,
        completion_tokens: counts.generated,
        total_tokens: prompt_tokens + counts.generated,
        prompt_tokens_details: PromptTokensDetails { cached_tokens: counts.cached },
    }
}
