//! `POST /v1/completions`, in the format of OpenAI and vLLM.

use serde::{Deserialize, Serialize};

use crate::generate::Matched;
use crate::ordered::OrderedMap;
use crate::prompts::{Prompts, Stops};

/// The body of `POST /v1/completions`.
///
/// Unknown fields are rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompletionsRequest {
    /// Name of the model. If present, it must be the served model's name.
    #[serde(default)]
    pub model: Option<String>,
    /// Prompts to score, to continue, or both.
    pub prompt: Prompts,
    /// Maximum number of tokens to generate for each completion. Default: 16, as in OpenAI's API, or fewer if the
    /// model's maximum length leaves less room. With 0, the prompts are only scored.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// `true` to start the returned text with the prompt.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub echo: bool,
    /// Number of most probable tokens to list at each position of the returned text, at most 64, along with the token's
    /// own log-probability. If absent, the response has no log-probabilities for the returned text.
    #[serde(default, deserialize_with = "crate::lenient::top")]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub logprobs: Option<u16>,
    /// vLLM extension. Number of most probable tokens to list at each position of the prompt, at most 64, along with
    /// the token's own log-probability. If absent, the response has no `prompt_logprobs`.
    #[serde(default, deserialize_with = "crate::lenient::top")]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub prompt_logprobs: Option<u16>,
    /// vLLM extension. `true` (default) to add BOS before string prompts if the model's tokenizer adds BOS to texts.
    /// Prompts given as token ids are never changed.
    #[serde(default = "crate::prompts::default_true", deserialize_with = "crate::lenient::or_true")]
    pub add_special_tokens: bool,
    /// Number of completions per prompt. Default: 1. If `seed` is present, the completions of a prompt use the seeds
    /// `seed`, `seed + 1`, ...
    #[serde(default)]
    pub n: Option<u32>,
    /// `true` to stream the response as server-sent events, the last of which is `[DONE]`.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub stream: bool,
    /// Options for a streamed response.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Sampling temperature, from 0 to 100, by which logits are divided. With 0, the most probable token is always
    /// selected. Default: 1.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// Nucleus sampling threshold, above 0 and at most 1: tokens are sampled from the smallest set of most probable
    /// tokens whose total probability reaches it. Default: 1 (all tokens).
    #[serde(default)]
    pub top_p: Option<f32>,
    /// vLLM extension. Number of most probable tokens to sample from; 0 and -1 mean all tokens. Default: all tokens.
    #[serde(default)]
    pub top_k: Option<i64>,
    /// Seed for sampling: the same request with the same seed always samples the same tokens. Default: a random seed.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Stop strings, each of which ends the completion and is not part of it: at most 64, each at most 1024 bytes long.
    #[serde(default)]
    pub stop: Option<Stops>,
    /// vLLM extension. Token ids that end the completion, in addition to the model's own EOS tokens: at most 256.
    #[serde(default)]
    pub stop_token_ids: Option<Vec<u32>>,
    /// vLLM extension. `true` to continue past the model's own EOS tokens.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub ignore_eos: bool,
    /// Must equal `n` if present: selecting the best completions is not supported.
    #[serde(default)]
    pub best_of: Option<u32>,
    /// vLLM extension. `true` to write each token in the log-probability lists as `token_id:{id}` instead of its text.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub return_tokens_as_token_ids: bool,
    /// vLLM extension. `true` to return the token ids of the prompt and of the generated text.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub return_token_ids: bool,
    /// vLLM extension. Priority of the request: requests with smaller values run sooner. Default: 0. Clients whose
    /// requests have the same priority take turns. The operator sets the smallest value that a client may use, 0 by
    /// default.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub priority: i32,
    /// vLLM extension. Salt of the prefix cache: the request shares cached prefixes only with requests that have the
    /// same salt (and, unless the server shares the cache among API keys, the same key). A string of 1 to 128
    /// characters, which should be hard to guess. It changes only the counts of cached tokens, not the results.
    /// Default: none.
    #[serde(default)]
    #[cfg_attr(feature = "schemas", schema(min_length = 1, max_length = 128))]
    pub cache_salt: Option<String>,
    /// vLLM extension. Name of the request: the response's id is `cmpl-{request_id}`. Default: a random identifier.
    #[serde(default)]
    pub request_id: Option<String>,
}

/// Options for a streamed response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// `true` to send one more event before `[DONE]`, with the token counts and no choices.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub include_usage: bool,
    /// vLLM extension. `true` to add the token counts so far to each event as well. Requires `include_usage`, as in
    /// vLLM.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub continuous_usage_stats: bool,
}

/// The response to `POST /v1/completions`, or one event of a streamed response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct CompletionsResponse {
    /// Identifier of the response.
    pub id: String,
    /// Always `"text_completion"`.
    pub object: String,
    /// Unix time at which the server created the response, in seconds.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// Fingerprint of the model, as in `LogprobsResponse`.
    pub system_fingerprint: String,
    /// `n` choices for each prompt, in the order of the prompts. An event of a stream has at most one choice.
    pub choices: Vec<Choice>,
    /// Token counts. In a stream, they come in one extra event, which the server sends only if
    /// `stream_options.include_usage` is `true`. With `stream_options.continuous_usage_stats`, each event has the
    /// counts of its choice so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<CompletionsUsage>,
}

/// One completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct Choice {
    /// Index of the completion: the prompt's index times `n`, plus the completion's index among those of the prompt.
    pub index: usize,
    /// The prompt if `echo` is `true`, followed by the generated text.
    pub text: String,
    /// Log-probabilities of the tokens of `text`; null unless the request has `logprobs`.
    pub logprobs: Option<ChoiceLogprobs>,
    /// Reason why the completion ended: `"stop"` for a stop string, a stop token or an EOS token, `"length"` for
    /// `max_tokens` or the model's maximum length. In a stream, null except in the completion's last event.
    pub finish_reason: Option<String>,
    /// vLLM extension. Stop string or stop token that ended the completion; null if nothing or an EOS token did.
    #[serde(default)]
    pub stop_reason: Option<Matched>,
    /// vLLM extension. For each prompt token, the log-probabilities of the token itself and of the most probable
    /// tokens, keyed by token id: the token itself first, then the others, the most probable first. Null for the first
    /// token, because nothing precedes it. Null unless the request has `prompt_logprobs`.
    #[serde(default)]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Option<std::collections::BTreeMap<String, PromptLogprob>>>>))]
    pub prompt_logprobs: Option<Vec<Option<OrderedMap<u32, PromptLogprob>>>>,
    /// vLLM extension. Ids of the generated tokens. Present if `return_token_ids` is `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// vLLM extension. Ids of the prompt's tokens. Present if `return_token_ids` is `true`; in a stream, only in the
    /// completion's first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

/// Log-probabilities of a text's tokens, one list entry per token. For the first prompt token, the entries of
/// `token_logprobs` and `top_logprobs` are null, because nothing precedes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ChoiceLogprobs {
    /// Offset at which each token's text begins, in characters. As in vLLM, the offsets include the text of BOS,
    /// although the echoed prompt does not contain it.
    pub text_offset: Vec<usize>,
    /// Log-probability of each token, in nats; -9999 represents minus infinity.
    pub token_logprobs: Vec<Option<f32>>,
    /// Text of each token.
    pub tokens: Vec<String>,
    /// At each position, the log-probabilities of the token itself and of the most probable tokens, keyed by token
    /// text: the token itself first, then the others, the most probable first. A token whose text is already a key has
    /// the key `token_id:{id}`.
    #[cfg_attr(feature = "schemas", schema(value_type = Vec<Option<std::collections::BTreeMap<String, f32>>>))]
    pub top_logprobs: Vec<Option<OrderedMap<String, f32>>>,
}

/// One token's log-probability, in vLLM's format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct PromptLogprob {
    /// Log-probability in nats; -9999 represents minus infinity.
    pub logprob: f32,
    /// Rank of the token in the vocabulary, 1 for the most probable; null if the model's engine computes no ranks.
    pub rank: Option<u32>,
    /// Text of the token.
    pub decoded_token: String,
}

/// Token counts, in OpenAI's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct CompletionsUsage {
    /// Number of tokens in all prompts.
    pub prompt_tokens: usize,
    /// Number of generated tokens.
    pub completion_tokens: usize,
    /// Sum of `prompt_tokens` and `completion_tokens`.
    pub total_tokens: usize,
    /// Details of `prompt_tokens`.
    #[serde(default)]
    pub prompt_tokens_details: PromptTokensDetails,
}

/// Details of the number of prompt tokens, in OpenAI's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct PromptTokensDetails {
    /// Number of the prompts' tokens that were found in the prefix cache.
    pub cached_tokens: usize,
}
