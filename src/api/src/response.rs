//! What the server answers: log-probabilities, the model it serves, token ids.

use serde::{Deserialize, Serialize};

use crate::Problem;

/// The answer of `POST /logprobs`; results stand in the order asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct LogprobsResponse {
    /// The model's name.
    pub model: String,
    /// What the numbers depend on: weights hash, dtype, backend, kernel version. Equal fingerprints, equal bits.
    pub fingerprint: String,
    /// One result a query, or one a pair.
    pub results: Vec<QueryResult>,
    /// What the request cost.
    pub usage: Usage,
}

/// One query's score.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct QueryResult {
    /// The query's id, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The `[context, target]` indices, for the pairs form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<[usize; 2]>,
    /// Log-probability of the whole target given the context, in nats: the tokens' f32 values added in f64, in order.
    pub sum: f64,
    /// How many tokens were scored.
    pub tokens: usize,
    /// How many of the sequence's tokens (BOS, context and target) came from the cache.
    pub cached_tokens: usize,
    /// Each target token's log-probability in nats (`detail: "tokens"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f32>>,
    /// The target's token ids (`detail: "tokens"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// Each target token's bytes in the target's text, `[from, to)`, as the tokenizer gives them (`detail: "tokens"`, where the
    /// target is a string). Tokens that share a character share its bytes; a tokenizer may leave bytes out, as spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Vec<[usize; 2]>>,
    /// The most probable tokens at each target token's place, `[id, log-probability in nats]`, the greatest first, ties by the
    /// smaller id (`top`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Vec<crate::schemas::Alternative>>>))]
    pub top: Option<Vec<Vec<(u32, f32)>>>,
    /// 1 + how many tokens are more probable than the target's, at each place (`rank`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Vec<u32>>,
    /// Entropy in nats of the distribution that predicts each target token (`entropy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropies: Option<Vec<f32>>,
    /// Log-probability in nats, at most 0, that any of the subset's tokens stands at each place (`subset`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset_logprobs: Option<Vec<f32>>,
}

/// The media type of an answer as [`StreamLine`]s.
pub const NDJSON: &str = "application/x-ndjson";

/// The media type of an answer as an Arrow IPC stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// One line of an NDJSON answer of `POST /logprobs`: results in the order they finish, then `end`, or a `problem`.
///
/// An answer whose last line is neither was cut off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StreamLine {
    /// One query's score.
    Result {
        /// The query's (or pair's) index in the request.
        index: usize,
        /// Its score.
        #[serde(flatten)]
        result: QueryResult,
    },
    /// Every result has been sent.
    End {
        /// The model's name.
        model: String,
        /// What the numbers depend on; see [`LogprobsResponse::fingerprint`].
        fingerprint: String,
        /// What the request cost.
        usage: Usage,
    },
    /// What went wrong after the first byte; no more follows.
    Problem(Problem),
}

/// Token counts of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Tokens that went through the model.
    pub computed_tokens: u64,
    /// Tokens whose work was found in the cache.
    pub cached_tokens: u64,
    /// Tokens whose log-probability was asked for.
    pub scored_tokens: u64,
}

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
    #[serde(default = "yes")]
    pub add_special_tokens: bool,
}

fn yes() -> bool {
    true
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
