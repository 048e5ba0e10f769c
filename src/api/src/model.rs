//! The served model and its tokenizer: `/v1/models`, `/tokenizer_info`, `/tokenize` and `/detokenize`.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::logprobs::LogprobsResponse;

/// `GET /v1/models`, as OpenAI's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// Always `"list"`.
    pub object: String,
    /// The one model that is served.
    pub data: Vec<ModelInfo>,
}

/// One served model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ModelInfo {
    /// The model's name.
    pub id: String,
    /// Always `"model"`.
    pub object: String,
    /// Unix time of the server's start, seconds.
    pub created: u64,
    /// Always `"surprisal"`.
    pub owned_by: String,
    /// The longest sequence (BOS, context and target) that is scored, in tokens; vLLM's name for it.
    pub max_model_len: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// What the numbers depend on; see [`LogprobsResponse::fingerprint`].
    pub fingerprint: String,
}

/// `POST /tokenize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenizeRequest {
    /// The model asked for; if given, it must be the one that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The text.
    pub prompt: String,
    /// Whether to add BOS as the model's own rule says; true when absent, as in vLLM.
    #[serde(default = "crate::prompts::default_true")]
    pub add_special_tokens: bool,
}

/// The answer of `POST /tokenize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct TokenizeResponse {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// How many there are.
    pub count: usize,
    /// The longest sequence that is scored, in tokens.
    pub max_model_len: usize,
}

/// `POST /detokenize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DetokenizeRequest {
    /// The model asked for; if given, it must be the one that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Token ids.
    pub tokens: Vec<u32>,
}

/// The answer of `POST /detokenize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct DetokenizeResponse {
    /// The text.
    pub prompt: String,
}

/// `GET /tokenizer_info`: what a client has to know to tokenise as the server does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct TokenizerInfo {
    /// The class that tokenizer_config.json names.
    pub tokenizer_class: Option<String>,
    /// Beginning of a sequence, as text.
    pub bos_token: Option<String>,
    /// Beginning of a sequence.
    pub bos_token_id: Option<u32>,
    /// End of a sequence, as text.
    pub eos_token: Option<String>,
    /// End of a sequence.
    pub eos_token_id: Option<u32>,
    /// Whether the model's own rule puts BOS before every text.
    pub add_bos_token: bool,
    /// Number of token ids the model has.
    pub vocab_size: usize,
    /// The longest sequence that is scored, in tokens.
    pub model_max_length: usize,
}
