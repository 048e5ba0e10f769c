//! `POST /generate`, as SGLang has it.

use serde::{Deserialize, Serialize};

use crate::prompts::{Prompts, Stops};

/// The body of `POST /generate`: `text` or `input_ids`, one prompt or several.
///
/// Fields not named here are refused rather than ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GenerateRequest {
    /// Prompts for the server's tokenizer; BOS goes before each by the model's own rule.
    #[serde(default)]
    pub text: Option<Prompts>,
    /// Prompts as token ids, taken as they are.
    #[serde(default)]
    pub input_ids: Option<Prompts>,
    /// How to generate.
    #[serde(default)]
    pub sampling_params: Option<SamplingParams>,
    /// Whether log-probabilities are answered.
    #[serde(default)]
    pub return_logprob: bool,
    /// Index of the first prompt token whose log-probability is answered; -1, or nothing, for none.
    #[serde(default)]
    pub logprob_start_len: Option<i64>,
    /// Alternatives beside each token.
    #[serde(default)]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub top_logprobs_num: Option<u16>,
    /// Whether each log-probability comes with its token's text.
    #[serde(default)]
    pub return_text_in_logprobs: bool,
    /// The greater, the sooner, as SGLang has it; 0 when absent. Of one priority, clients take turns.
    #[serde(default)]
    pub priority: i32,
    /// Only false.
    #[serde(default)]
    pub stream: bool,
}

/// How to generate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SamplingParams {
    /// Tokens to generate; 128 when absent, as SGLang has it, or as many as there is room for.
    #[serde(default)]
    pub max_new_tokens: Option<u32>,
    /// Logits are divided by it; 1 when absent, 0 is greedy.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// The share of probability that is drawn from; all of it when absent.
    #[serde(default)]
    pub top_p: Option<f32>,
    /// How many of the most probable tokens are drawn from; any number when absent, 0 or -1.
    #[serde(default)]
    pub top_k: Option<i64>,
    /// Equal seeds draw equal tokens; by chance when absent.
    #[serde(default)]
    pub sampling_seed: Option<i64>,
    /// Texts that end the text; they are not part of it.
    #[serde(default)]
    pub stop: Option<Stops>,
    /// Tokens that end the text, beside the model's own.
    #[serde(default)]
    pub stop_token_ids: Option<Vec<u32>>,
    /// Whether the model's own end is passed over.
    #[serde(default)]
    pub ignore_eos: bool,
}

/// The answer of `POST /generate`: an object for one prompt, an array for a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum GenerateResponses {
    /// One prompt's.
    One(Box<GenerateResponse>),
    /// In the order asked.
    Many(Vec<GenerateResponse>),
}

/// One prompt's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct GenerateResponse {
    /// What was generated.
    pub text: String,
    /// Its token ids.
    pub output_ids: Vec<u32>,
    /// Counts and log-probabilities.
    pub meta_info: GenerateMeta,
}

/// A token's log-probability in nats, its id, and its text if that was asked for.
pub type TokenLogprob = (Option<f32>, u32, Option<String>);

/// Counts and log-probabilities of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct GenerateMeta {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Tokens of the prompt found in the cache.
    pub cached_tokens: usize,
    /// Each prompt token from `logprob_start_len` on. Only the prompt's first
    /// token, before which nothing stands, has null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<crate::tuples::TokenLogprob>>))]
    pub input_token_logprobs: Option<Vec<TokenLogprob>>,
    /// The same of what was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<crate::tuples::TokenLogprob>>))]
    pub output_token_logprobs: Option<Vec<TokenLogprob>>,
    /// The most probable tokens at each place of `input_token_logprobs` (`top_logprobs_num`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Option<Vec<crate::tuples::TokenLogprob>>>>))]
    pub input_top_logprobs: Option<Vec<Option<Vec<TokenLogprob>>>>,
    /// The most probable tokens at each place of `output_token_logprobs` (`top_logprobs_num`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Vec<crate::tuples::TokenLogprob>>>))]
    pub output_top_logprobs: Option<Vec<Vec<TokenLogprob>>>,
}

/// Why generation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct FinishReason {
    /// `"length"` or `"stop"`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tokens generated, where that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// The text or token that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
}

/// What ended a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Matched {
    /// A token.
    Token(u32),
    /// A text.
    Text(String),
}
