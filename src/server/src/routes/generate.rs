//! `POST /generate` in SGLang's format: scores prompts from `logprob_start_len` on, and continues them.

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{
    FinishReason, GenerateMeta, GenerateRequest, GenerateResponse, GenerateResponses, Matched, Prompts, TokenLogprob,
};
use surprisal_engine::{PositionDetails, PositionOptions};

use super::context::RequestContext;
use super::response::{LOWEST_LOGPROB, json};
use crate::app::App;
use crate::generation::batch::{PromptBatch, tokenize_prompts};
use crate::generation::continuation::{Completion, EndReason};
use crate::generation::decoder::token_text;
use crate::generation::params::GenerationParams;
use crate::input::validate::check_top;
use crate::limits::client::Client;
use crate::problem::{self, Failure};

/// SGLang's default for `max_new_tokens`.
const DEFAULT_MAX_NEW_TOKENS: u32 = 128;

/// A checked request, ready for the engine.
struct GenerateSubmission {
    batch: PromptBatch,
    /// `true` if the request has a list of prompts.
    is_list: bool,
    /// `true` if the response has log-probabilities.
    logprobs: bool,
    /// `true` if each log-probability comes with its token's text.
    token_texts: bool,
    /// Number of tokens that admission counts for the request.
    tokens: u32,
}

pub(super) async fn generate(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let submission = context.read(request, prepare).await?;
    let tokens = submission.tokens;
    let _permit = context.admit_tokens(tokens)?;
    let completions = submission.batch.run(&context.app).await?;
    context.respond(tokens, move |app| json(&responses(app, &submission, &completions))).await
}

/// Checks a request and tokenizes its prompts.
fn prepare(app: &App, request: GenerateRequest, client: Client) -> Result<GenerateSubmission, Failure> {
    if request.stream {
        return Err(problem::unsupported_value("stream", true, "false"));
    }
    let top = request.top_logprobs_num.filter(|_| request.return_logprob).unwrap_or(0);
    check_top("top_logprobs_num", top)?;
    let sampling = request.sampling_params.unwrap_or_default();
    let params = GenerationParams {
        field_prefix: "sampling_params.",
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
    let is_list = matches!(prompts, Prompts::Many(_));
    // SGLang's default, -1, begins at the end of the prompt.
    let from = usize::try_from(request.logprob_start_len.unwrap_or(-1)).unwrap_or(usize::MAX);
    let batch = PromptBatch {
        field,
        prompts: tokenize_prompts(app, prompts, field, true)?,
        completions_per_prompt: 1,
        score_from: request.return_logprob.then_some(from),
        options: PositionOptions { top, ..PositionOptions::default() },
        generation,
        // In SGLang, greater priorities run first.
        scheduling: client.scheduling(request.priority.saturating_neg()),
    };
    let tokens = batch.check(app)?;
    let (logprobs, token_texts) = (request.return_logprob, request.return_text_in_logprobs);
    Ok(GenerateSubmission { batch, is_list, logprobs, token_texts, tokens })
}

fn responses(app: &App, submission: &GenerateSubmission, completions: &[Completion]) -> GenerateResponses {
    let mut responses = Vec::with_capacity(completions.len());
    for (prompt, completion) in submission.batch.prompts.iter().zip(completions) {
        responses.push(submission.response(app, &prompt.tokens, completion));
    }
    match responses.pop() {
        Some(response) if !submission.is_list => GenerateResponses::One(Box::new(response)),
        last => {
            responses.extend(last);
            GenerateResponses::Many(responses)
        }
    }
}

impl GenerateSubmission {
    /// Returns the response for one prompt.
    fn response(&self, app: &App, prompt: &[u32], completion: &Completion) -> GenerateResponse {
        let tokens = &completion.tokens;
        let has_top = self.batch.options.top > 0;
        let output = || tokens.iter().map(|token| self.entry(app, token.id, token.logprob)).collect();
        let output_top = || tokens.iter().map(|token| self.alternatives(app, &token.position)).collect();
        GenerateResponse {
            text: completion.text.clone(),
            output_ids: tokens.iter().map(|token| token.id).collect(),
            meta_info: GenerateMeta {
                finish_reason: finish_reason(completion),
                prompt_tokens: prompt.len(),
                completion_tokens: tokens.len(),
                cached_tokens: completion.scores.cached_tokens,
                input_token_logprobs: self.logprobs.then(|| self.input(app, prompt, completion)),
                output_token_logprobs: self.logprobs.then(output),
                input_top_logprobs: has_top.then(|| self.input_top(app, prompt, completion)),
                output_top_logprobs: has_top.then(output_top),
            },
        }
    }

    /// Returns the log-probabilities of the prompt's tokens.
    fn input(&self, app: &App, prompt: &[u32], completion: &Completion) -> Vec<TokenLogprob> {
        let mut entries = Vec::new();
        entries.extend(self.first_token(prompt).map(|token| (None, token, self.text(app, token))));
        let scored = prompt.iter().skip(self.score_from().max(1)).zip(&completion.scores.logprobs);
        entries.extend(scored.map(|(&token, &logprob)| self.entry(app, token, logprob)));
        entries
    }

    /// Returns the alternatives at the positions of the prompt's tokens.
    fn input_top(&self, app: &App, prompt: &[u32], completion: &Completion) -> Vec<Option<Vec<TokenLogprob>>> {
        let mut entries = Vec::new();
        entries.extend(self.first_token(prompt).map(|_| None));
        entries.extend(completion.scores.positions.iter().map(|position| Some(self.alternatives(app, position))));
        entries
    }

    /// Returns the index of the first listed token of a prompt.
    fn score_from(&self) -> usize {
        self.batch.score_from.unwrap_or(usize::MAX)
    }

    /// Returns a prompt's first token if it is listed. Nothing precedes it, so it has no log-probability.
    fn first_token(&self, prompt: &[u32]) -> Option<u32> {
        prompt.first().copied().filter(|_| self.score_from() == 0)
    }

    fn alternatives(&self, app: &App, position: &PositionDetails) -> Vec<TokenLogprob> {
        position.top.iter().map(|&(token, logprob)| self.entry(app, token, logprob)).collect()
    }

    fn entry(&self, app: &App, token: u32, logprob: f32) -> TokenLogprob {
        (Some(logprob.max(LOWEST_LOGPROB)), token, self.text(app, token))
    }

    fn text(&self, app: &App, token: u32) -> Option<String> {
        self.token_texts.then(|| token_text(app, token))
    }
}

fn finish_reason(completion: &Completion) -> FinishReason {
    let (kind, length, matched) = match &completion.end {
        None | Some(EndReason::Length) => ("length", Some(completion.tokens.len()), None),
        Some(EndReason::StopToken(token)) => ("stop", None, Some(Matched::Token(*token))),
        Some(EndReason::StopText(text)) => ("stop", None, Some(Matched::Text(text.clone()))),
    };
    FinishReason { kind: kind.to_owned(), length, matched }
}
