//! The served model and its tokenizer: `/v1/models`, `/tokenizer_info`, `/tokenize` and `/detokenize`.

use serde::{Deserialize, Serialize};

/// The response to `GET /v1/models`, in OpenAI's format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// Always `"list"`.
    pub object: String,
    /// The served model, as the only element.
    pub data: Vec<ModelInfo>,
}

/// One served model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ModelInfo {
    /// Name of the model.
    pub id: String,
    /// Always `"model"`.
    pub object: String,
    /// Unix time at which the server started, in seconds.
    pub created: u64,
    /// Always `"surprisal"`.
    pub owned_by: String,
    /// Maximum length of a sequence (BOS, context and target), in tokens. The field name is vLLM's.
    pub max_model_len: usize,
    /// Number of token ids in the model's vocabulary.
    pub vocab_size: usize,
    /// Identifier of everything that affects the results, as in `LogprobsResponse`.
    pub fingerprint: String,
}

/// The body of `POST /tokenize`. Unknown fields are rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenizeRequest {
    /// Name of the model. If present, it must be the served model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Text to tokenize.
    pub prompt: String,
    /// `true` (default, as in vLLM) to add the beginning-of-sequence token (BOS) before the text if the model's
    /// tokenizer adds BOS to texts.
    #[serde(default = "crate::prompts::default_true")]
    pub add_special_tokens: bool,
}

/// The response to `POST /tokenize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct TokenizeResponse {
    /// Token ids of the text.
    pub tokens: Vec<u32>,
    /// Number of tokens.
    pub count: usize,
    /// Maximum length of a sequence, in tokens.
    pub max_model_len: usize,
}

/// The body of `POST /detokenize`. Unknown fields are rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DetokenizeRequest {
    /// Name of the model. If present, it must be the served model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Token ids to decode.
    pub tokens: Vec<u32>,
}

/// The response to `POST /detokenize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct DetokenizeResponse {
    /// Decoded text of the tokens.
    pub prompt: String,
}

/// The response to `GET /tokenizer_info`: the facts that a client needs to tokenize in the same way as the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct TokenizerInfo {
    /// Tokenizer class from the model's `tokenizer_config.json`; null if that file names none.
    pub tokenizer_class: Option<String>,
    /// Text of the beginning-of-sequence token (BOS); null if the tokenizer has none.
    pub bos_token: Option<String>,
    /// Id of the beginning-of-sequence token (BOS); null if the tokenizer has none.
    pub bos_token_id: Option<u32>,
    /// Text of the end-of-sequence token (EOS); null if the tokenizer has none.
    pub eos_token: Option<String>,
    /// Id of the end-of-sequence token (EOS); null if the tokenizer has none.
    pub eos_token_id: Option<u32>,
    /// `true` if the tokenizer adds BOS before every text.
    pub add_bos_token: bool,
    /// Number of token ids in the model's vocabulary.
    pub vocab_size: usize,
    /// Maximum length of a sequence, in tokens.
    pub model_max_length: usize,
}
