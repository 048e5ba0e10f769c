//! `POST /generate`, as SGLang has it: what scoring needs of it.

use serde::{Deserialize, Serialize};

use crate::Prompts;

/// The body of `POST /generate`: `text` or `input_ids`, one prompt or several.
///
/// Fields not named here are refused rather than ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    pub top_logprobs_num: Option<u32>,
    /// Whether each log-probability comes with its token's text.
    #[serde(default)]
    pub return_text_in_logprobs: bool,
    /// Whether the answer comes in pieces.
    #[serde(default)]
    pub stream: bool,
}

/// How to generate; all but the number of tokens is without effect where nothing is generated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingParams {
    /// Tokens to generate; 128 when absent, as SGLang has it.
    #[serde(default)]
    pub max_new_tokens: Option<u32>,
    /// Without effect.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Without effect.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Without effect.
    #[serde(default)]
    pub top_k: Option<i64>,
}

/// The answer of `POST /generate`: an object for one prompt, an array for a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GenerateResponses {
    /// One prompt's.
    One(Box<GenerateResponse>),
    /// In the order asked.
    Many(Vec<GenerateResponse>),
}

/// One prompt's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerateResponse {
    /// What was generated: nothing.
    pub text: String,
    /// Its token ids: none.
    pub output_ids: Vec<u32>,
    /// Counts and log-probabilities.
    pub meta_info: GenerateMeta,
}

/// A token's log-probability in nats, its id, and its text if that was asked for.
pub type TokenLogprob = (Option<f32>, u32, Option<String>);

/// Counts and log-probabilities of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    pub input_token_logprobs: Option<Vec<TokenLogprob>>,
    /// The same of what was generated: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_token_logprobs: Option<Vec<TokenLogprob>>,
}

/// Why generation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishReason {
    /// Always `"length"`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tokens generated.
    pub length: usize,
}
