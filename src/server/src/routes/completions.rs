//! `POST /v1/completions` as vLLM answers it: prompts scored, nothing generated.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::response::Response;
use surprisal_api::{
    Bos, Choice, ChoiceLogprobs, CompletionsRequest, CompletionsResponse, CompletionsUsage, Detail, PromptLogprob,
    Prompts, Text,
};
use surprisal_engine::{Query, Scores};

use super::logprobs::score;
use super::meta::json;
use crate::prepare::{begin, check_count, encode};
use crate::problem::{self, Failure};
use crate::{App, body};

/// vLLM's stand-in for minus infinity, which JSON cannot say.
pub(super) const LOWEST: f32 = -9999.0;

/// OpenAI's default of `max_tokens`.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// A request whose prompts are tokens.
struct Asked {
    prompts: Vec<Vec<u32>>,
    echo: bool,
    logprobs: bool,
    prompt_logprobs: bool,
    /// Tokens of all prompts.
    tokens: u32,
}

impl Asked {
    fn scores(&self) -> bool {
        (self.echo && self.logprobs) || self.prompt_logprobs
    }
}

pub(super) async fn completions(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let start = Instant::now();
    let bytes = body::read(request, app.config.max_body_bytes).await?;
    let asked = app.offload(move |app| prepare(app, body::parse(&bytes)?)).await?;
    let tokens = asked.tokens;
    let _permit = app.admission.admit(tokens)?;
    // A prompt of one token has nothing to score: nothing stands before it.
    let scored: Vec<usize> =
        (0..asked.prompts.len()).filter(|&at| asked.scores() && asked.prompts[at].len() > 1).collect();
    let query = |&at: &usize| Query { tokens: asked.prompts[at].clone(), score_from: 1 };
    let queries = scored.iter().map(query).collect();
    let scores = score(&app, queries, |at| field(scored[at])).await?;
    let mut all = vec![Scores::default(); asked.prompts.len()];
    for (at, scores) in scored.into_iter().zip(scores) {
        all[at] = scores;
    }
    let response = app.offload(move |app| json(&answer(app, &asked, &all))).await?;
    app.metrics.count_answer(start.elapsed().as_secs_f64(), tokens);
    Ok(response)
}

fn field(prompt: usize) -> String {
    format!("prompt[{prompt}]")
}

fn prepare(app: &App, request: CompletionsRequest) -> Result<Asked, Failure> {
    app.check_model(request.model.as_deref())?;
    check_offered(&request)?;
    let (prompts, tokens) = tokenise(app, request.prompt, "prompt", request.add_special_tokens)?;
    Ok(Asked {
        prompts,
        echo: request.echo,
        logprobs: request.logprobs.is_some(),
        prompt_logprobs: request.prompt_logprobs.is_some(),
        tokens,
    })
}

/// The tokens of prompts that fit, and how many there are in all; BOS goes before strings alone, if `special`.
pub(super) fn tokenise(
    app: &App,
    prompts: Prompts,
    name: &str,
    special: bool,
) -> Result<(Vec<Vec<u32>>, u32), Failure> {
    let prompts = match prompts {
        Prompts::One(prompt) => vec![prompt],
        Prompts::Many(prompts) => prompts,
    };
    check_count(name, prompts.len(), app.config.max_queries)?;
    let mut tokenised = Vec::with_capacity(prompts.len());
    let (mut total, limit) = (0_usize, app.model().max_length);
    for (index, prompt) in prompts.into_iter().enumerate() {
        let field = format!("{name}[{index}]");
        let rule = if special && matches!(prompt, Text::String(_)) { Bos::Auto } else { Bos::None };
        let tokens = begin(rule, app.codec.bos(), encode(app, prompt, Detail::Sum, &field, Some(index))?.tokens);
        match tokens.len() {
            0 => return Err(problem::empty_prompt(index, field)),
            length if length > limit => return Err(problem::sequence_too_long(index, field, length, limit)),
            length => total = total.saturating_add(length),
        }
        tokenised.push(tokens);
    }
    Ok((tokenised, app.admission.check(total)?))
}

/// Refuses what the engine does not offer, so that no part of a request is silently dropped.
fn check_offered(request: &CompletionsRequest) -> Result<(), Failure> {
    let at_most = |field: &str, value: Option<u32>, limit: u32| match value {
        Some(value) if value > limit => Err(problem::not_offered(field, value, limit)),
        _ => Ok(()),
    };
    at_most("max_tokens", request.max_tokens.or(Some(DEFAULT_MAX_TOKENS)), 0)?;
    at_most("logprobs", request.logprobs, 0)?;
    at_most("prompt_logprobs", request.prompt_logprobs, 0)?;
    at_most("n", request.n, 1)?;
    at_most("stream", Some(u32::from(request.stream)), 0)
}

fn answer(app: &App, asked: &Asked, scores: &[Scores]) -> CompletionsResponse {
    let prompt_tokens = asked.prompts.iter().map(Vec::len).sum();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let choices = asked.prompts.iter().zip(scores).enumerate();
    CompletionsResponse {
        id: format!("cmpl-{:x}", now.as_nanos()),
        object: "text_completion".to_owned(),
        created: now.as_secs(),
        model: app.model().id.clone(),
        choices: choices.map(|(index, (prompt, scores))| choice(app, asked, index, prompt, scores)).collect(),
        usage: CompletionsUsage { prompt_tokens, completion_tokens: 0, total_tokens: prompt_tokens },
    }
}

fn choice(app: &App, asked: &Asked, index: usize, prompt: &[u32], scores: &Scores) -> Choice {
    let texts: Vec<String> = prompt.iter().map(|&token| text(app, token)).collect();
    let known = scores.logprobs.iter().map(|&logprob| Some(logprob.max(LOWEST)));
    let values: Vec<Option<f32>> = std::iter::once(None).chain(known).collect();
    let logprobs = match (asked.logprobs, asked.echo) {
        (true, true) => Some(listed(&texts, &values)),
        (true, false) => Some(ChoiceLogprobs::default()),
        (false, _) => None,
    };
    let by_id = |(at, value): (usize, &Option<f32>)| {
        value.map(|logprob| {
            let decoded_token = texts[at].clone();
            BTreeMap::from([(prompt[at], PromptLogprob { logprob, rank: None, decoded_token })])
        })
    };
    Choice {
        index,
        text: if asked.echo { app.codec.decode(prompt).unwrap_or_else(|_| texts.concat()) } else { String::new() },
        logprobs,
        finish_reason: "length".to_owned(),
        prompt_logprobs: asked.prompt_logprobs.then(|| values.iter().enumerate().map(by_id).collect()),
    }
}

fn listed(texts: &[String], values: &[Option<f32>]) -> ChoiceLogprobs {
    let offset = |at: &mut usize, text: &String| {
        let begin = *at;
        *at += text.chars().count();
        Some(begin)
    };
    let top = |(text, value): (&String, &Option<f32>)| value.map(|value| BTreeMap::from([(text.clone(), value)]));
    ChoiceLogprobs {
        text_offset: texts.iter().scan(0, offset).collect(),
        token_logprobs: values.to_vec(),
        tokens: texts.to_vec(),
        top_logprobs: texts.iter().zip(values).map(top).collect(),
    }
}

/// A token's text; a token that has none is called by its id, as vLLM calls it where texts are not unique.
pub(super) fn text(app: &App, token: u32) -> String {
    app.codec.decode(&[token]).unwrap_or_else(|_| format!("token_id:{token}"))
}
