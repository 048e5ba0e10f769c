//! `POST /generate` as SGLang answers it: prompts scored from `logprob_start_len` on, nothing generated.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;
use surprisal_api::{
    FinishReason, GenerateMeta, GenerateRequest, GenerateResponse, GenerateResponses, Prompts, SamplingParams,
};
use surprisal_engine::{Query, Scores};

use super::completions::{LOWEST, text, tokenise};
use super::logprobs::score;
use super::meta::json;
use crate::problem::{self, Failure};
use crate::{App, body};

/// SGLang's default of `max_new_tokens`.
const DEFAULT_MAX_NEW_TOKENS: u32 = 128;

/// A request whose prompts are tokens.
struct Asked {
    prompts: Vec<Vec<u32>>,
    /// Whether `prompts` was a list.
    many: bool,
    /// Index of the first token whose log-probability is asked for, if any is.
    from: Option<usize>,
    texts: bool,
    tokens: u32,
}

pub(super) async fn generate(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let start = Instant::now();
    let bytes = body::read(request, app.config.max_body_bytes).await?;
    let asked = app.offload(move |app| prepare(app, body::parse(&bytes)?)).await?;
    let tokens = asked.tokens;
    let _permit = app.admission.admit(tokens)?;
    // Nothing stands before the first token: it is not scored.
    let from = asked.from.map_or(usize::MAX, |from| from.max(1));
    let scored: Vec<usize> = (0..asked.prompts.len()).filter(|&at| from < asked.prompts[at].len()).collect();
    let query = |&at: &usize| Query { tokens: asked.prompts[at].clone(), score_from: from };
    let queries = scored.iter().map(query).collect();
    let scores = score(&app, queries, |at| format!("prompt[{}]", scored[at])).await?;
    let mut all = vec![Scores::default(); asked.prompts.len()];
    for (at, scores) in scored.into_iter().zip(scores) {
        all[at] = scores;
    }
    let response = app.offload(move |app| json(&answer(app, &asked, &all))).await?;
    app.metrics.count_answer(start.elapsed().as_secs_f64(), tokens);
    Ok(response)
}

fn prepare(app: &App, request: GenerateRequest) -> Result<Asked, Failure> {
    let SamplingParams { max_new_tokens, .. } = request.sampling_params.unwrap_or_default();
    for (field, value) in [
        ("sampling_params.max_new_tokens", max_new_tokens.unwrap_or(DEFAULT_MAX_NEW_TOKENS)),
        ("top_logprobs_num", request.top_logprobs_num.unwrap_or(0)),
        ("stream", u32::from(request.stream)),
    ] {
        if value > 0 {
            return Err(problem::not_offered(field, value, 0));
        }
    }
    let (prompts, name) = match (request.text, request.input_ids) {
        (Some(prompts), None) => (prompts, "text"),
        (None, Some(prompts)) => (prompts, "input_ids"),
        _ => return Err(problem::text_or_ids()),
    };
    let many = matches!(prompts, Prompts::Many(_));
    let (prompts, tokens) = tokenise(app, prompts, name, true)?;
    // -1, SGLang's default, begins where the prompt ends.
    let start = request.logprob_start_len.unwrap_or(-1);
    let from = request.return_logprob.then(|| usize::try_from(start).unwrap_or(usize::MAX));
    Ok(Asked { prompts, many, from, texts: request.return_text_in_logprobs, tokens })
}

fn answer(app: &App, asked: &Asked, scores: &[Scores]) -> GenerateResponses {
    let one = |(prompt, scores): (&Vec<u32>, &Scores)| response(app, asked, prompt, scores);
    let mut answers: Vec<_> = asked.prompts.iter().zip(scores).map(one).collect();
    match answers.pop() {
        Some(answer) if !asked.many => GenerateResponses::One(Box::new(answer)),
        last => {
            answers.extend(last);
            GenerateResponses::Many(answers)
        }
    }
}

fn response(app: &App, asked: &Asked, prompt: &[u32], scores: &Scores) -> GenerateResponse {
    let name = |token| asked.texts.then(|| text(app, token));
    let input = asked.from.map(|from| {
        let unknown = prompt.first().filter(|_| from == 0).map(|&token| (None, token, name(token)));
        let known = prompt.iter().skip(from.max(1)).zip(&scores.logprobs);
        let known = known.map(|(&token, &logprob)| (Some(logprob.max(LOWEST)), token, name(token)));
        unknown.into_iter().chain(known).collect()
    });
    GenerateResponse {
        text: String::new(),
        output_ids: Vec::new(),
        meta_info: GenerateMeta {
            finish_reason: FinishReason { kind: "length".to_owned(), length: 0 },
            prompt_tokens: prompt.len(),
            completion_tokens: 0,
            cached_tokens: scores.cached_tokens,
            output_token_logprobs: input.is_some().then(Vec::new),
            input_token_logprobs: input,
        },
    }
}
