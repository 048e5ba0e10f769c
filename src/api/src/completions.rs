//! `POST /v1/completions`, as OpenAI and vLLM have it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::prompts::{Prompts, Stops};

/// The body of `POST /v1/completions`.
///
/// Fields not named here are refused rather than ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompletionsRequest {
    /// The model asked for; if given, it must be the one that is served.
    #[serde(default)]
    pub model: Option<String>,
    /// What is scored or continued.
    pub prompt: Prompts,
    /// Tokens to generate; 16 when absent, as OpenAI has it, or as many as there is room for. 0 scores alone.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Whether the answer begins with the prompt.
    #[serde(default)]
    pub echo: bool,
    /// Log-probabilities of the answer's tokens, and of so many alternatives beside each.
    #[serde(default)]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub logprobs: Option<u16>,
    /// vLLM's: log-probabilities of the prompt's tokens, and of so many alternatives beside each.
    #[serde(default)]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub prompt_logprobs: Option<u16>,
    /// vLLM's: whether BOS goes before a string prompt by the model's own rule. Token ids are taken as they are.
    #[serde(default = "crate::prompts::default_true")]
    pub add_special_tokens: bool,
    /// Completions of each prompt; the seed of each is one more than that of the one before.
    #[serde(default)]
    pub n: Option<u32>,
    /// Whether the answer comes in pieces, as server-sent events.
    #[serde(default)]
    pub stream: bool,
    /// What the pieces say.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Logits are divided by it; 1 when absent, 0 is greedy.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// The share of probability that is drawn from; all of it when absent.
    #[serde(default)]
    pub top_p: Option<f32>,
    /// vLLM's: how many of the most probable tokens are drawn from; any number when absent, 0 or -1.
    #[serde(default)]
    pub top_k: Option<i64>,
    /// Equal seeds draw equal tokens; by chance when absent.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Texts that end the completion; they are not part of it.
    #[serde(default)]
    pub stop: Option<Stops>,
    /// vLLM's: tokens that end the completion, beside the model's own.
    #[serde(default)]
    pub stop_token_ids: Option<Vec<u32>>,
    /// vLLM's: whether the model's own end is passed over.
    #[serde(default)]
    pub ignore_eos: bool,
    /// Only 1: as many as `n`.
    #[serde(default)]
    pub best_of: Option<u32>,
    /// Only 0: logits are the model's own.
    #[serde(default)]
    pub presence_penalty: Option<f32>,
    /// Only 0: logits are the model's own.
    #[serde(default)]
    pub frequency_penalty: Option<f32>,
    /// vLLM's: the smaller, the sooner; 0 when absent. Of one priority, clients take turns.
    #[serde(default)]
    pub priority: i32,
    /// Without effect.
    #[serde(default)]
    pub user: Option<String>,
}

/// What the pieces of a stream say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Whether a last piece, without choices, has the token counts.
    #[serde(default)]
    pub include_usage: bool,
}

/// The answer of `POST /v1/completions`, or a piece of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct CompletionsResponse {
    /// A name of this answer.
    pub id: String,
    /// Always `"text_completion"`.
    pub object: String,
    /// Unix time, seconds.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// `n` a prompt, in the order asked.
    pub choices: Vec<Choice>,
    /// Token counts; in a stream, of its last piece alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<CompletionsUsage>,
}

/// One completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct Choice {
    /// Its index: the prompt's times `n`, and which of the prompt's it is.
    pub index: usize,
    /// The prompt, if it was to be echoed, and what was generated.
    pub text: String,
    /// Log-probabilities of `text`'s tokens, if asked for.
    pub logprobs: Option<ChoiceLogprobs>,
    /// `"stop"` at a text or token that ends it, `"length"` at `max_tokens`; null in a stream before the last piece.
    pub finish_reason: Option<String>,
    /// vLLM's: log-probabilities by id, the most probable tokens' and the token's own; null for the first, before which
    /// nothing stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Option<BTreeMap<String, PromptLogprob>>>>))]
    pub prompt_logprobs: Option<Vec<Option<BTreeMap<u32, PromptLogprob>>>>,
}

/// Log-probabilities of a text's tokens; the first prompt token, before which nothing stands, has null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ChoiceLogprobs {
    /// Where each token's text begins, in characters. BOS's text counts, as in vLLM, though an echoed text does not show it.
    pub text_offset: Vec<usize>,
    /// Natural logarithms.
    pub token_logprobs: Vec<Option<f32>>,
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Log-probabilities by text: the most probable tokens' and the token's own; of two with the same text, the greater.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
}

/// One token's log-probability, as vLLM has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct PromptLogprob {
    /// In nats.
    pub logprob: f32,
    /// The token's rank in the vocabulary, from 1, where it is known.
    pub rank: Option<u32>,
    /// The token's text.
    pub decoded_token: String,
}

/// Token counts, as OpenAI has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct CompletionsUsage {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}
