//! Responses of servers, read but not judged.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use surprisal_api::LogprobsResponse;

use crate::batch::Batch;
use crate::dialect::Dialect;

/// A server's response to a batch of queries.
#[derive(Clone, Debug, PartialEq)]
pub struct Response<F> {
    /// Results in the order of the queries, as many as the response has.
    pub results: Vec<Logprobs<F>>,
    /// The fingerprint of the model, if the response has one.
    pub fingerprint: Option<String>,
    /// Tokens that went through the model, where the response states it.
    pub computed_tokens: Option<u64>,
    /// Tokens that were found in a cache, where the response states it.
    pub cached_tokens: Option<u64>,
}

/// Log-probabilities in one result, in nats; `None` for a token that has none.
#[derive(Clone, Debug, PartialEq)]
pub enum Logprobs<F> {
    /// Those of the target's tokens.
    Target(Vec<F>),
    /// Those of the prompt's tokens from the first on, and then perhaps those of generated tokens.
    Prompt(Vec<Option<F>>),
    /// Those of the prompt's last tokens.
    PromptEnd(Vec<Option<F>>),
    /// The result has none.
    Missing,
}

/// The reason why a response cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The response is not JSON, or JSON of another form.
    Response(serde_json::Error),
    /// The response is JSON, and one result in it has another form.
    Result(serde_json::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Response(error) | Self::Result(error)) = self;
        error.fmt(f)
    }
}

impl std::error::Error for ReadError {}

/// A response of OpenAI's or vLLM's.
#[derive(Deserialize)]
struct CompletionsResponse<F> {
    choices: Vec<CompletionChoice<F>>,
}

#[derive(Deserialize)]
struct CompletionChoice<F> {
    index: usize,
    logprobs: Option<OpenAiLogprobs<F>>,
    /// For each token of the prompt, log-probabilities by token id.
    prompt_logprobs: Option<Vec<Option<Alternatives<F>>>>,
}

/// Log-probabilities of the tokens listed at one position of a prompt, by token id. A server may list others by their text.
type Alternatives<F> = HashMap<String, ListedLogprob<F>>;

#[derive(Deserialize)]
struct OpenAiLogprobs<F> {
    token_logprobs: Vec<Option<F>>,
}

#[derive(Deserialize)]
struct ListedLogprob<F> {
    logprob: F,
}

/// One result of SGLang's.
#[derive(Deserialize)]
struct SglangResult<F> {
    meta_info: SglangMeta<F>,
}

#[derive(Deserialize)]
struct SglangMeta<F> {
    /// Log-probability, token id, text.
    input_token_logprobs: Vec<(Option<F>, u32, IgnoredAny)>,
    #[serde(default)]
    cached_tokens: Value,
}

/// One result of llama.cpp's.
#[derive(Deserialize)]
struct LlamaCppResult {
    /// Tokens of the prompt.
    tokens_evaluated: u64,
    #[serde(default)]
    timings: Option<LlamaCppTimings>,
}

#[derive(Deserialize)]
struct LlamaCppTimings {
    /// Tokens of the prompt that went through the model.
    prompt_n: u64,
}

impl Dialect {
    /// Reads the response to a request for `batch`; log-probabilities are numbers of type `F`.
    ///
    /// # Errors
    /// [`ReadError`] if the response is not of the dialect's form.
    pub fn read<F>(self, batch: &Batch<'_>, body: &[u8]) -> Result<Response<F>, ReadError>
    where
        F: DeserializeOwned + Copy + From<f32>,
    {
        match self {
            Self::Surprisal => surprisal(body),
            Self::Vllm => vllm(batch, body),
            Self::OpenAi => openai(body),
            Self::Sglang => sglang(body),
            Self::LlamaCpp => llama_cpp(body),
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(body).map_err(ReadError::Response)
}

/// Reads an array of results, or a single one that stands alone.
fn parse_results<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, ReadError> {
    let results = match parse::<Value>(body)? {
        Value::Array(results) => results,
        result => vec![result],
    };
    results.into_iter().map(|result| serde_json::from_value(result).map_err(ReadError::Result)).collect()
}

fn surprisal<F: From<f32>>(body: &[u8]) -> Result<Response<F>, ReadError> {
    let LogprobsResponse { results, fingerprint, usage, .. } = parse(body)?;
    let logprobs = results.into_iter().map(|result| {
        let logprobs = result.logprobs.unwrap_or_default();
        Logprobs::Target(logprobs.into_iter().map(F::from).collect())
    });
    Ok(Response {
        results: logprobs.collect(),
        fingerprint: Some(fingerprint),
        computed_tokens: Some(usage.computed_tokens),
        cached_tokens: Some(usage.cached_tokens),
    })
}

/// Reads the choices, in the order of the prompts.
fn choices<F: DeserializeOwned>(body: &[u8]) -> Result<Vec<CompletionChoice<F>>, ReadError> {
    let CompletionsResponse { mut choices } = parse(body)?;
    choices.sort_by_key(|choice| choice.index);
    Ok(choices)
}

fn vllm<F: DeserializeOwned + Copy>(batch: &Batch<'_>, body: &[u8]) -> Result<Response<F>, ReadError> {
    let mut prompts = batch.prompts().into_iter();
    let results = choices(body)?.into_iter().map(|choice| {
        // Choices beyond the queries have no prompt.
        let prompt = prompts.next().unwrap_or_default();
        choice.prompt_logprobs.map(|listed| select(listed, &prompt))
    });
    Ok(completions(results))
}

fn openai<F: DeserializeOwned>(body: &[u8]) -> Result<Response<F>, ReadError> {
    let choices = choices(body)?.into_iter();
    Ok(completions(choices.map(|choice| choice.logprobs.map(|logprobs| logprobs.token_logprobs))))
}

/// Selects each prompt token's log-probability from the tokens listed at its place.
fn select<F>(listed: Vec<Option<Alternatives<F>>>, prompt: &[u32]) -> Vec<Option<F>> {
    let mut logprobs = Vec::with_capacity(prompt.len());
    for (alternatives, token) in listed.into_iter().zip(prompt) {
        let own = alternatives.and_then(|mut alternatives| alternatives.remove(&token.to_string()));
        logprobs.push(own.map(|own| own.logprob));
    }
    logprobs
}

fn completions<F>(results: impl Iterator<Item = Option<Vec<Option<F>>>>) -> Response<F> {
    let results = results.map(|logprobs| logprobs.map_or(Logprobs::Missing, Logprobs::Prompt)).collect();
    Response { results, fingerprint: None, computed_tokens: None, cached_tokens: None }
}

fn sglang<F: DeserializeOwned>(body: &[u8]) -> Result<Response<F>, ReadError> {
    let sglang_results: Vec<SglangResult<F>> = parse_results(body)?;
    let cached_tokens = sglang_results.iter().map(|result| result.meta_info.cached_tokens.as_u64()).sum();
    let results = sglang_results.into_iter().map(|SglangResult { meta_info }| {
        Logprobs::PromptEnd(meta_info.input_token_logprobs.into_iter().map(|(logprob, ..)| logprob).collect())
    });
    Ok(Response { results: results.collect(), fingerprint: None, computed_tokens: None, cached_tokens })
}

fn llama_cpp<F>(body: &[u8]) -> Result<Response<F>, ReadError> {
    let llama_cpp_results: Vec<LlamaCppResult> = parse_results(body)?;
    let all: u64 = llama_cpp_results.iter().map(|result| result.tokens_evaluated).sum();
    let computed_tokens: Option<u64> =
        llama_cpp_results.iter().map(|result| result.timings.as_ref().map(|timings| timings.prompt_n)).sum();
    Ok(Response {
        results: llama_cpp_results.iter().map(|_| Logprobs::Missing).collect(),
        fingerprint: None,
        computed_tokens,
        cached_tokens: computed_tokens.map(|computed| all.saturating_sub(computed)),
    })
}
