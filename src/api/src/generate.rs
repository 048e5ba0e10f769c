//! `POST /generate`, in SGLang's format.

use serde::{Deserialize, Serialize};

use crate::prompts::{Prompts, Stops};

/// The body of `POST /generate`: one prompt or several, as either `text` or `input_ids`.
///
/// Unknown fields are rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GenerateRequest {
    /// Prompts as strings. The server adds BOS before each if the model's tokenizer does.
    #[serde(default)]
    pub text: Option<Prompts>,
    /// Prompts as token ids. The server uses them unchanged and adds no BOS.
    #[serde(default)]
    pub input_ids: Option<Prompts>,
    /// Generation options.
    #[serde(default)]
    pub sampling_params: Option<SamplingParams>,
    /// `true` to return log-probabilities.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub return_logprob: bool,
    /// Index of the first prompt token whose log-probability is returned, at most the number of tokens of each prompt.
    /// Ignored unless `return_logprob` is `true`. Default: -1 (none are returned).
    #[serde(default)]
    pub logprob_start_len: Option<i64>,
    /// Number of most probable tokens to list at each position, at most 64, along with the token's own log-probability.
    /// Ignored unless `return_logprob` is `true`. Default: 0.
    #[serde(default, deserialize_with = "crate::lenient::top")]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub top_logprobs_num: Option<u16>,
    /// `true` to return the text of each token along with its log-probability.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub return_text_in_logprobs: bool,
    /// Priority of the request: as in SGLang, requests with greater values run sooner. Default: 0. Clients whose
    /// requests have the same priority take turns. The operator sets the greatest value that a client may use, 0 by
    /// default.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub priority: i32,
    /// Salt of the prefix cache: the request shares cached prefixes only with requests that have the same salt (and,
    /// unless the server shares the cache among API keys, the same key). A string of at most 128 characters, which
    /// should be hard to guess. It changes only the counts of cached tokens, not the results. Default: "" (none).
    #[serde(default)]
    #[cfg_attr(feature = "schemas", schema(max_length = 128))]
    pub cache_salt: Option<String>,
    /// `true` to stream the response as server-sent events, the last of which is `[DONE]`. Each event has the whole
    /// result so far, as in SGLang.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub stream: bool,
}

/// Generation options.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SamplingParams {
    /// Maximum number of tokens to generate. Default: 128, as in SGLang, or fewer if the model's maximum length leaves
    /// less room. With 0, the prompts are only scored.
    #[serde(default)]
    pub max_new_tokens: Option<u32>,
    /// Sampling temperature, from 0 to 100, by which logits are divided. With 0, the most probable token is always
    /// selected. Default: 1.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// Nucleus sampling threshold, above 0 and at most 1: tokens are sampled from the smallest set of most probable
    /// tokens whose total probability reaches it. Default: 1 (all tokens).
    #[serde(default)]
    pub top_p: Option<f32>,
    /// Number of most probable tokens to sample from; 0 and -1 mean all tokens. Default: all tokens.
    #[serde(default)]
    pub top_k: Option<i64>,
    /// Seed for sampling: the same request with the same seed always samples the same tokens. Default: a random seed.
    #[serde(default)]
    pub sampling_seed: Option<i64>,
    /// Stop strings, each of which ends the generated text and is not part of it: at most 64, each at most 1024 bytes
    /// long.
    #[serde(default)]
    pub stop: Option<Stops>,
    /// Token ids that end the generated text, in addition to the model's own EOS tokens: at most 256.
    #[serde(default)]
    pub stop_token_ids: Option<Vec<u32>>,
    /// `true` to continue past the model's own EOS tokens.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub ignore_eos: bool,
}

/// The response to `POST /generate`: an object for a single prompt, an array for a list of prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum GenerateResponses {
    /// The result of a single prompt.
    One(Box<GenerateResponse>),
    /// The results of a list of prompts, in the order of the request.
    Many(Vec<GenerateResponse>),
}

/// The result of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct GenerateResponse {
    /// Generated text.
    pub text: String,
    /// Ids of all generated tokens, including the EOS or stop token, or the tokens of the stop string, which `text`
    /// omits.
    pub output_ids: Vec<u32>,
    /// Token counts and log-probabilities.
    pub meta_info: GenerateMeta,
    /// Index of the prompt. Present in the events of a stream if the request has a list of prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

/// A token's log-probability in nats (-9999 represents minus infinity), its id, and its text if requested.
pub type TokenLogprob = (Option<f32>, u32, Option<String>);

/// Token counts and log-probabilities of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct GenerateMeta {
    /// Identifier of the prompt's result, the same in all events of a stream.
    pub id: String,
    /// Reason why generation ended. In a stream, null except in the prompt's last event.
    pub finish_reason: Option<FinishReason>,
    /// Number of tokens in the prompt.
    pub prompt_tokens: usize,
    /// Number of generated tokens.
    pub completion_tokens: usize,
    /// Number of the prompt's tokens that were found in the prefix cache.
    pub cached_tokens: usize,
    /// Log-probability, id and text of each prompt token from `logprob_start_len` on. The log-probability of the
    /// prompt's first token is null, because nothing precedes it. -9999 represents minus infinity. Present if
    /// `return_logprob` is `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<crate::tuples::TokenLogprob>>))]
    pub input_token_logprobs: Option<Vec<TokenLogprob>>,
    /// Log-probability, id and text of each generated token. Present if `return_logprob` is `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<crate::tuples::TokenLogprob>>))]
    pub output_token_logprobs: Option<Vec<TokenLogprob>>,
    /// Most probable tokens at each position of `input_token_logprobs`; null for the prompt's first token. Present if
    /// `top_logprobs_num` is above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Option<Vec<crate::tuples::TokenLogprob>>>>))]
    pub input_top_logprobs: Option<Vec<Option<Vec<TokenLogprob>>>>,
    /// Most probable tokens at each position of `output_token_logprobs`. Present if `top_logprobs_num` is above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Vec<crate::tuples::TokenLogprob>>>))]
    pub output_top_logprobs: Option<Vec<Vec<TokenLogprob>>>,
}

/// The reason why generation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct FinishReason {
    /// `"length"` if `max_new_tokens` or the model's maximum length ended generation, `"stop"` if a stop string, a stop
    /// token or an EOS token did.
    #[serde(rename = "type")]
    pub kind: String,
    /// Number of generated tokens. Present if `type` is `"length"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// Stop string or token id that ended generation. Present if `type` is `"stop"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
}

/// The stop string or token that ended generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Matched {
    /// Id of the token.
    Token(u32),
    /// Stop string.
    Text(String),
}
