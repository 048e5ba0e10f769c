//! Parsed responses of servers. [`Logprobs::of_target`] checks their values.

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
    /// The results in the order of the queries. Their number may differ from the number of queries.
    pub results: Vec<Logprobs<F>>,
    /// The fingerprint of the model, or of the system in the OpenAI and vLLM dialects; `None` if the response has none.
    pub fingerprint: Option<String>,
    /// The number of tokens that went through the model; `None` if the response does not state it.
    pub computed_tokens: Option<u64>,
    /// The number of tokens that were found in a cache; `None` if the response does not state it.
    pub cached_tokens: Option<u64>,
}

/// The log-probabilities in one result, in nats; `None` for a token without one.
#[derive(Clone, Debug, PartialEq)]
pub enum Logprobs<F> {
    /// Log-probabilities of the target's tokens.
    Target {
        /// The log-probabilities.
        logprobs: Vec<F>,
        /// The ids of the tokens; `None` if the response does not have them.
        token_ids: Option<Vec<u32>>,
    },
    /// Log-probabilities of all prompt tokens.
    Prompt(Vec<Option<F>>),
    /// Log-probabilities of all prompt tokens, and of the generated token if there is one.
    PromptAndGenerated(Vec<Option<F>>),
    /// The last prompt tokens and their log-probabilities.
    PromptEnd(Vec<(u32, Option<F>)>),
    /// No log-probabilities.
    Missing,
}

/// A failure to read a response.
#[derive(Debug)]
pub enum ReadError {
    /// A response that is not JSON, or does not have the dialect's form.
    Response(serde_json::Error),
    /// A JSON response with a result that does not have the dialect's form.
    Result(serde_json::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Response(error) | Self::Result(error)) = self;
        error.fmt(f)
    }
}

impl std::error::Error for ReadError {}

/// A response in the OpenAI or vLLM dialect.
#[derive(Deserialize)]
struct CompletionsResponse<F> {
    choices: Vec<CompletionChoice<F>>,
    #[serde(default)]
    system_fingerprint: Option<String>,
}

#[derive(Deserialize)]
struct CompletionChoice<F> {
    index: usize,
    logprobs: Option<OpenAiLogprobs<F>>,
    /// The listed log-probabilities at each position of the prompt.
    prompt_logprobs: Option<Vec<Option<Alternatives<F>>>>,
}

/// Log-probabilities of the tokens listed at one position of a prompt, by token id. A server may list some tokens by
/// their text instead.
type Alternatives<F> = HashMap<String, ListedLogprob<F>>;

#[derive(Deserialize)]
struct OpenAiLogprobs<F> {
    token_logprobs: Vec<Option<F>>,
}

#[derive(Deserialize)]
struct ListedLogprob<F> {
    logprob: F,
}

/// One result in a response of SGLang.
#[derive(Deserialize)]
struct SglangResult<F> {
    meta_info: SglangMeta<F>,
}

#[derive(Deserialize)]
struct SglangMeta<F> {
    /// The log-probability, token id and text of each token.
    input_token_logprobs: Vec<(Option<F>, u32, IgnoredAny)>,
    #[serde(default)]
    cached_tokens: Value,
}

/// One result in a response of llama.cpp.
#[derive(Deserialize)]
struct LlamaCppResult {
    /// The number of tokens in the prompt.
    tokens_evaluated: u64,
    #[serde(default)]
    timings: Option<LlamaCppTimings>,
}

#[derive(Deserialize)]
struct LlamaCppTimings {
    /// The number of prompt tokens that went through the model.
    prompt_n: u64,
}

impl Dialect {
    /// Reads the response to a request for `batch`, with log-probabilities of type `F`.
    ///
    /// # Errors
    /// [`ReadError`] if the response does not have the dialect's form.
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

/// Reads an array of results, or a single result without an array.
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
        let logprobs = result.logprobs.unwrap_or_default().into_iter().map(F::from).collect();
        Logprobs::Target { logprobs, token_ids: result.token_ids }
    });
    Ok(Response {
        results: logprobs.collect(),
        fingerprint: Some(fingerprint),
        computed_tokens: Some(usage.computed_tokens),
        cached_tokens: Some(usage.cached_tokens),
    })
}

/// Reads a response, and sorts its choices by prompt.
fn parse_completions<F: DeserializeOwned>(body: &[u8]) -> Result<CompletionsResponse<F>, ReadError> {
    let mut response: CompletionsResponse<F> = parse(body)?;
    response.choices.sort_by_key(|choice| choice.index);
    Ok(response)
}

fn vllm<F: DeserializeOwned + Copy>(batch: &Batch<'_>, body: &[u8]) -> Result<Response<F>, ReadError> {
    let mut prompts = batch.prompts().into_iter();
    let CompletionsResponse { choices, system_fingerprint } = parse_completions(body)?;
    let results = choices.into_iter().map(|choice| {
        // If there are more choices than queries, the extra choices have no prompt.
        let prompt = prompts.next().unwrap_or_default();
        choice.prompt_logprobs.map(|listed| Logprobs::Prompt(select(listed, &prompt)))
    });
    Ok(completions(results, system_fingerprint))
}

fn openai<F: DeserializeOwned>(body: &[u8]) -> Result<Response<F>, ReadError> {
    let CompletionsResponse { choices, system_fingerprint } = parse_completions(body)?;
    let results = choices
        .into_iter()
        .map(|choice| choice.logprobs.map(|logprobs| Logprobs::PromptAndGenerated(logprobs.token_logprobs)));
    Ok(completions(results, system_fingerprint))
}

/// Selects the log-probability of each prompt token from the tokens listed at its position. Positions after the prompt
/// have none.
fn select<F>(listed: Vec<Option<Alternatives<F>>>, prompt: &[u32]) -> Vec<Option<F>> {
    let mut logprobs = Vec::with_capacity(listed.len());
    for (position, alternatives) in listed.into_iter().enumerate() {
        let token = prompt.get(position).map(ToString::to_string).unwrap_or_default();
        let own = alternatives.and_then(|mut alternatives| alternatives.remove(&token));
        logprobs.push(own.map(|own| own.logprob));
    }
    logprobs
}

fn completions<F>(results: impl Iterator<Item = Option<Logprobs<F>>>, fingerprint: Option<String>) -> Response<F> {
    let results = results.map(|logprobs| logprobs.unwrap_or(Logprobs::Missing)).collect();
    Response { results, fingerprint, computed_tokens: None, cached_tokens: None }
}

/// Adds token counts; returns `None` if one is unknown. The sum does not overflow, whatever a server states.
fn sum(counts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let mut total = 0u64;
    for count in counts {
        total = total.saturating_add(count?);
    }
    Some(total)
}

fn sglang<F: DeserializeOwned>(body: &[u8]) -> Result<Response<F>, ReadError> {
    let sglang_results: Vec<SglangResult<F>> = parse_results(body)?;
    let cached_tokens = sum(sglang_results.iter().map(|result| result.meta_info.cached_tokens.as_u64()));
    let results = sglang_results.into_iter().map(|SglangResult { meta_info }| {
        let tokens = meta_info.input_token_logprobs.into_iter();
        Logprobs::PromptEnd(tokens.map(|(logprob, token, _)| (token, logprob)).collect())
    });
    Ok(Response { results: results.collect(), fingerprint: None, computed_tokens: None, cached_tokens })
}

fn llama_cpp<F>(body: &[u8]) -> Result<Response<F>, ReadError> {
    let llama_cpp_results: Vec<LlamaCppResult> = parse_results(body)?;
    let all = sum(llama_cpp_results.iter().map(|result| Some(result.tokens_evaluated)));
    let computed_tokens = sum(llama_cpp_results.iter().map(|result| Some(result.timings.as_ref()?.prompt_n)));
    Ok(Response {
        results: llama_cpp_results.iter().map(|_| Logprobs::Missing).collect(),
        fingerprint: None,
        computed_tokens,
        cached_tokens: all.zip(computed_tokens).map(|(all, computed)| all.saturating_sub(computed)),
    })
}
