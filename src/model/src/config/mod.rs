//! A model's configuration: [`LlamaConfig`], read from config.json, and the tensors that it implies.
//!
//! Start with `parse.rs`, which reads config.json and rejects unsupported settings. To add an architecture, start with
//! [`Architecture`]. `known_fields.rs` has the rule for the fields of a JSON file; `config_fields.rs`,
//! `generation_fields.rs` and `tokenizer_fields.rs` list those of config.json, generation_config.json and
//! tokenizer_config.json. `rope_fields.rs` reads the rotary fields, and `rope.rs` computes the frequencies.
//! `window_fields.rs` reads the sliding window, and `quantization.rs` the layout of FP8 weights. `tensors.rs` lists a
//! model's tensors.

mod config_fields;
pub(crate) mod generation_fields;
mod json_fields;
mod known_fields;
mod parse;
pub(crate) mod quantization;
pub(crate) mod rope;
mod rope_fields;
pub(crate) mod tensors;
pub(crate) mod tokenizer_fields;
mod window_fields;

use self::quantization::Quantization;
use self::rope::RopeScaling;

/// A family of decoders that shares Llama's forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2, 3, 3.1, 3.2, 3.3.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.
    Qwen2,
    /// Qwen3: Llama with normalized queries and keys.
    Qwen3,
}

impl Architecture {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// Returns the class name in `architectures` of config.json.
    fn class_name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// Returns the `model_type` in config.json.
    fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// A model's sizes, features and special tokens, as the forward pass needs them.
///
/// A checkpoint's fingerprint hashes the `Debug` output, so the names of the fields, and of the types in them, must not
/// change.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// The model's family.
    pub architecture: Architecture,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Size of one head; even.
    pub head_dim: usize,
    /// The epsilon that RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// Maximum length of a sequence that the model supports, in tokens.
    pub max_positions: usize,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// The scaling of the rotary frequencies for long contexts.
    pub rope_scaling: RopeScaling,
    /// Number of tokens that a token attends to, itself included; `None` if it attends to all earlier tokens.
    pub sliding_window: Option<usize>,
    /// `true` if queries, keys and values have biases.
    pub qkv_bias: bool,
    /// `true` if the attention output projection has a bias.
    pub output_bias: bool,
    /// `true` if the MLP's linear layers have biases.
    pub mlp_bias: bool,
    /// `true` if each head's queries and keys are normalized before they are rotated.
    pub qk_norm: bool,
    /// The layout of FP8 weights' scales; `None` if no weights are FP8.
    pub quantization: Option<Quantization>,
    /// `true` if the embedding is also the output head.
    pub tie_word_embeddings: bool,
    /// The beginning-of-sequence token; `None` if config.json names none.
    pub bos_token_id: Option<u32>,
    /// The end-of-sequence token, or the first one if there are several; `None` if config.json names none.
    pub eos_token_id: Option<u32>,
}

#[cfg(test)]
mod test_configs;
