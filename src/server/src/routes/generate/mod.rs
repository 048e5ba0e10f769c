//! `POST /generate` in SGLang's format: scores prompts from `logprob_start_len` on, and continues them.
//!
//! Start with `generate`, the handler. `result` turns completions into results, and `sse` streams them.

mod result;
mod sse;

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{GenerateRequest, Prompts, Text};
use surprisal_engine::PositionOptions;

use self::result::ResultFormat;
use super::context::RequestContext;
use super::parts::JsonList;
use super::response::{random_id, respond};
use crate::app::App;
use crate::generation::batch::{Prompt, PromptBatch, PromptField, tokenize_prompts};
use crate::generation::continuation::Completion;
use crate::generation::params::GenerationParams;
use crate::input::validate::{check_cache_salt, check_top};
use crate::limits::client::Client;
use crate::problem::{self, Failure};

/// SGLang's default for `max_new_tokens`.
const DEFAULT_MAX_NEW_TOKENS: u32 = 128;

/// A checked request, ready for the engine.
struct GenerateSubmission {
    batch: PromptBatch,
    format: ResultFormat,
    /// Identifier of each prompt's result.
    ids: Vec<String>,
    is_streamed: bool,
    /// Number of tokens that admission counts for the request.
    tokens: u32,
}

pub(super) async fn generate(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let submission = context.read(request, prepare).await?;
    let tokens = submission.tokens;
    let permit = context.admit_work(submission.batch.count(), tokens)?;
    if submission.is_streamed {
        return Ok(sse::respond(context, submission, permit));
    }
    let items = submission.batch.run(&context.app).await?;
    let (head, tail) = if submission.batch.field.is_list { ("[", "]") } else { ("", "") };
    let submission = Arc::new(submission);
    let size = {
        let submission = Arc::clone(&submission);
        move |(index, completion): &(usize, Completion)| submission.format.size(&submission.batch, *index, completion)
    };
    let make = move |app: &App, (index, completion): (usize, Completion)| {
        let GenerateSubmission { batch, format, ids, .. } = &*submission;
        format.response(app, batch, index, &ids[index], &completion, true)
    };
    respond(context, tokens, permit, JsonList::new(head.into(), items, tail.into(), size, make)).await
}

/// Checks a request and tokenizes its prompts.
fn prepare(app: &App, request: GenerateRequest, client: Client) -> Result<GenerateSubmission, Failure> {
    let top = request.top_logprobs_num.filter(|_| request.return_logprob).unwrap_or(0);
    check_top("top_logprobs_num", top)?;
    // In SGLang, an empty salt is none.
    let cache_salt = request.cache_salt.as_deref().filter(|salt| !salt.is_empty());
    check_cache_salt(cache_salt)?;
    let sampling = request.sampling_params.unwrap_or_default();
    let params = GenerationParams {
        field_prefix: "sampling_params.",
        max_tokens_field: "max_new_tokens",
        max_tokens: sampling.max_new_tokens,
        default_max_tokens: DEFAULT_MAX_NEW_TOKENS,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        seed: sampling.sampling_seed,
        stop: sampling.stop,
        stop_token_ids: sampling.stop_token_ids,
        ignore_eos: sampling.ignore_eos,
        top,
    };
    let generation = params.into_config(app)?;
    let (prompts, field) = match (request.text, request.input_ids) {
        (Some(prompts), None) => (prompts, "text"),
        (None, Some(prompts)) => (prompts, "input_ids"),
        _ => return Err(problem::text_or_ids()),
    };
    check_kind(&prompts, field)?;
    let field = PromptField::new(field, &prompts);
    let prompts = tokenize_prompts(app, prompts, field, true)?;
    let score_from = match request.return_logprob {
        true => Some(score_from(request.logprob_start_len.unwrap_or(-1), &prompts, field)?),
        false => None,
    };
    let ids = prompts.iter().map(|_| random_id()).collect();
    let batch = PromptBatch {
        field,
        prompts,
        completions_per_prompt: 1,
        score_from,
        options: PositionOptions { top, ..PositionOptions::default() },
        generation,
        scheduling: client.sglang_scheduling(request.priority)?,
        namespace: client.namespace(cache_salt),
    };
    let tokens = batch.check(app)?;
    let format = ResultFormat { logprobs: request.return_logprob, token_texts: request.return_text_in_logprobs };
    Ok(GenerateSubmission { batch, format, ids, is_streamed: request.stream, tokens })
}

/// Rejects token ids in `text`, and strings in `input_ids`.
fn check_kind(prompts: &Prompts, field: &str) -> Result<(), Failure> {
    let has_wrong_kind = |prompt: &Text| matches!(prompt, Text::String(_)) != (field == "text");
    let index = match prompts {
        Prompts::One(prompt) => has_wrong_kind(prompt).then_some(None),
        Prompts::Many(prompts) => prompts.iter().position(has_wrong_kind).map(Some),
    };
    let Some(index) = index else { return Ok(()) };
    let path = index.map_or_else(|| field.to_owned(), |index| format!("{field}[{index}]"));
    let reason = match field {
        "text" => "is an array of token ids; it must be a string: send token ids as `input_ids`",
        _ => "is a string; it must be an array of token ids: send strings as `text`",
    };
    Err(problem::invalid_field(&path, index, reason))
}

/// Returns the index of the first listed token of each prompt. With `start` -1, SGLang's default, the list is empty.
fn score_from(start: i64, prompts: &[Prompt], field: PromptField) -> Result<usize, Failure> {
    let reject = |rule: String| problem::out_of_range("logprob_start_len", &start.to_string(), &rule);
    if start == -1 {
        return Ok(usize::MAX);
    }
    let from = usize::try_from(start).map_err(|_| reject("-1 or greater".to_owned()))?;
    match prompts.iter().position(|prompt| from > prompt.tokens.len()) {
        Some(index) => {
            let length = prompts[index].tokens.len();
            Err(reject(format!("at most {length}, the number of tokens of `{}`", field.at(index))))
        }
        None => Ok(from),
    }
}
