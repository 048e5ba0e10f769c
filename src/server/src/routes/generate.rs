//! `POST /generate` as SGLang answers it: prompts scored from `logprob_start_len` on, and continued.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use surprisal_api::{
    FinishReason, GenerateMeta, GenerateRequest, GenerateResponse, GenerateResponses, Matched, Prompts, TokenLogprob,
};
use surprisal_engine::{PositionDetails, PositionOptions};

use super::InFlight;
use super::choice::LOWEST;
use super::continuation::{End, Written, token_text};
use super::meta::json;
use super::work::{Prompt, Wish, Work, tokenise};
use crate::app::TOKEN_BYTES;
use crate::client::Client;
use crate::prepare::check_top;
use crate::problem::{self, Failure};
use crate::{App, body};

/// SGLang's default of `max_new_tokens`.
const DEFAULT_MAX_NEW_TOKENS: u32 = 128;

/// A request whose prompts are tokens.
struct Asked {
    work: Work,
    /// Whether the prompts were a list.
    many: bool,
    /// Whether log-probabilities are answered.
    logprobs: bool,
    texts: bool,
    tokens: u32,
}

pub(super) async fn generate(
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
    let _permit = app.admission.admit(client.account(), tokens)?;
    let written = asked.work.run(&app).await?;
    let bytes = tokens as usize * TOKEN_BYTES;
    let response = app.offload(in_flight, bytes, move |app| json(&answer(app, &asked, &written))).await?;
    app.metrics.count_answer(start.elapsed().as_secs_f64(), tokens);
    Ok(response)
}

fn prepare(app: &App, request: GenerateRequest, client: Client) -> Result<Asked, Failure> {
    if request.stream {
        return Err(problem::no_effect("stream", true, "false"));
    }
    let top = request.top_logprobs_num.filter(|_| request.return_logprob).unwrap_or(0);
    check_top("top_logprobs_num", top)?;
    let params = request.sampling_params.unwrap_or_default();
    let wish = Wish {
        prefix: "sampling_params.",
        length: params.max_new_tokens,
        default_length: DEFAULT_MAX_NEW_TOKENS,
        temperature: params.temperature,
        top_p: params.top_p,
        top_k: params.top_k,
        seed: params.sampling_seed,
        stop: params.stop,
        stop_token_ids: params.stop_token_ids,
        ignore_eos: params.ignore_eos,
        top,
    };
    let writing = wish.writing(app)?;
    let (prompts, name) = match (request.text, request.input_ids) {
        (Some(prompts), None) => (prompts, "text"),
        (None, Some(prompts)) => (prompts, "input_ids"),
        _ => return Err(problem::text_or_ids()),
    };
    let many = matches!(prompts, Prompts::Many(_));
    // -1, SGLang's default, begins where the prompt ends.
    let from = usize::try_from(request.logprob_start_len.unwrap_or(-1)).unwrap_or(usize::MAX);
    let work = Work {
        name,
        prompts: tokenise(app, prompts, name, true)?,
        each: 1,
        score_from: request.return_logprob.then_some(from),
        extras: PositionOptions { top, ..PositionOptions::default() },
        writing,
        // SGLang's are the other way round.
        turn: client.turn(request.priority.saturating_neg()),
    };
    let tokens = work.check(app)?;
    Ok(Asked { work, many, logprobs: request.return_logprob, texts: request.return_text_in_logprobs, tokens })
}

fn answer(app: &App, asked: &Asked, written: &[Written]) -> GenerateResponses {
    let one = |(prompt, written): (&Prompt, &Written)| response(app, asked, &prompt.tokens, written);
    let mut answers: Vec<_> = asked.work.prompts.iter().zip(written).map(one).collect();
    match answers.pop() {
        Some(answer) if !asked.many => GenerateResponses::One(Box::new(answer)),
        last => {
            answers.extend(last);
            GenerateResponses::Many(answers)
        }
    }
}

fn response(app: &App, asked: &Asked, prompt: &[u32], written: &Written) -> GenerateResponse {
    let name = |token| asked.texts.then(|| token_text(app, token));
    let entry = |token, logprob: f32| (Some(logprob.max(LOWEST)), token, name(token));
    let listed = |position: &PositionDetails| -> Vec<TokenLogprob> {
        position.top.iter().map(|&(token, logprob)| entry(token, logprob)).collect()
    };
    let (scores, tokens) = (&written.scores, &written.tokens);
    let from = asked.work.score_from.unwrap_or(usize::MAX);
    // Nothing stands before a prompt's first token.
    let unknown = prompt.first().filter(|_| from == 0);
    let input = || {
        let known = prompt.iter().skip(from.max(1)).zip(&scores.logprobs);
        let known = known.map(|(&token, &logprob)| entry(token, logprob));
        unknown.map(|&token| (None, token, name(token))).into_iter().chain(known).collect()
    };
    let input_top = || unknown.map(|_| None).into_iter().chain(scores.positions.iter().map(|at| Some(listed(at))));
    let tops = asked.work.extras.top > 0;
    GenerateResponse {
        text: written.text.clone(),
        output_ids: tokens.iter().map(|token| token.id).collect(),
        meta_info: GenerateMeta {
            finish_reason: finish(written),
            prompt_tokens: prompt.len(),
            completion_tokens: tokens.len(),
            cached_tokens: scores.cached_tokens,
            input_token_logprobs: asked.logprobs.then(input),
            output_token_logprobs: asked
                .logprobs
                .then(|| tokens.iter().map(|token| entry(token.id, token.logprob)).collect()),
            input_top_logprobs: tops.then(|| input_top().collect()),
            output_top_logprobs: tops.then(|| tokens.iter().map(|token| listed(&token.position)).collect()),
        },
    }
}

fn finish(written: &Written) -> FinishReason {
    let (kind, length, matched) = match &written.end {
        None | Some(End::Length) => ("length", Some(written.tokens.len()), None),
        Some(End::Token(token)) => ("stop", None, Some(Matched::Token(*token))),
        Some(End::Text(text)) => ("stop", None, Some(Matched::Text(text.clone()))),
    };
    FinishReason { kind: kind.to_owned(), length, matched }
}
