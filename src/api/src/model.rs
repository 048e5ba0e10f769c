//! The served model, its tokenizer and the server: `/v1/models`, `/tokenizer_info`, `/tokenize`, `/detokenize`, and
//! routes that describe the server to clients of vLLM and SGLang.

use serde::de::{self, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

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
    /// Name of the model, again: vLLM's and SGLang's clients read their tokenizer's name from this field.
    #[serde(default)]
    pub root: String,
    /// Always null: the model is not an adapter of another one.
    #[serde(default)]
    pub parent: Option<String>,
    /// Maximum length of a sequence (BOS, context and target), in tokens. The field name is vLLM's.
    pub max_model_len: usize,
    /// Number of token ids in the model's vocabulary.
    pub vocab_size: usize,
    /// Identifier of everything that affects the results, as in `LogprobsResponse`.
    pub fingerprint: String,
}

/// The body of `POST /tokenize`. Unknown fields are rejected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_special_tokens: Option<bool>,
    /// `true` to return each token as the vocabulary spells it. Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_token_strs: Option<bool>,
    /// `true` to return the range of each token in the text. Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_offsets: Option<bool>,
    /// Rejected, with the reason: the server does not apply chat templates.
    #[serde(default, skip_serializing)]
    #[cfg_attr(feature = "schemas", schema(ignore))]
    pub messages: Option<ChatMessages>,
}

/// Messages of a chat, which the server does not support. The type has no values, and reading one fails with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatMessages {}

impl<'de> Deserialize<'de> for ChatMessages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Err(de::Error::custom(
            "chat messages are not supported; apply the model's chat template, and send the text as `prompt` with \
             \"add_special_tokens\": false",
        ))
    }
}

/// The response to `POST /tokenize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct TokenizeResponse {
    /// Token ids of the text.
    pub tokens: Vec<u32>,
    /// Each token as the vocabulary spells it, such as `Ġwas` or `▁was`. Present if the request has `return_token_strs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_strs: Option<Vec<String>>,
    /// Range `[from, to)` of each token in the text, in bytes. `[0, 0]` for special tokens before the text, and the
    /// length of the text for those after it. Tokens that share a character have the same range. Present if the request
    /// has `return_offsets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Vec<[usize; 2]>>,
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
    /// Chat template of the tokenizer, in Jinja's syntax; null if it has none. The server does not apply it.
    #[serde(default)]
    pub chat_template: Option<String>,
    /// Number of token ids in the model's vocabulary.
    pub vocab_size: usize,
    /// Maximum length of a sequence, in tokens.
    pub model_max_length: usize,
}

/// The response to `GET /version`, in vLLM's format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct VersionInfo {
    /// Version of this server, not of vLLM.
    pub version: String,
}

/// The response to `GET /load`, in vLLM's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ServerLoad {
    /// Number of requests in flight, including those being read.
    pub server_load: u32,
}

/// The response to `GET /model_info` and `GET /get_model_info`, in SGLang's format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct SglangModelInfo {
    /// Name of the model.
    pub model_path: String,
    /// Name of the model.
    pub served_model_name: String,
    /// Name of the model, whose tokenizer the server uses.
    pub tokenizer_path: String,
    /// Always `true`: the model generates text.
    pub is_generation: bool,
    /// Always `false`: the model reads text only.
    pub has_image_understanding: bool,
    /// Always `false`: the model reads text only.
    pub has_audio_understanding: bool,
}

/// The response to `GET /server_info` and `GET /get_server_info`, in SGLang's format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct SglangServerInfo {
    /// Name of the model.
    pub model_path: String,
    /// Name of the model.
    pub served_model_name: String,
    /// Name of the model, whose tokenizer the server uses.
    pub tokenizer_path: String,
    /// Maximum length of a sequence, in tokens.
    pub context_length: usize,
    /// Version of this server, not of SGLang.
    pub version: String,
    /// State of the engine, as the only element.
    pub internal_states: Vec<SglangEngineState>,
}

/// The state of the engine, in SGLang's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct SglangEngineState {
    /// Number of requests that the server accepts at once.
    pub effective_max_running_requests_per_dp: u32,
}
