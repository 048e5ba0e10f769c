//! A model's configuration: [`LlamaConfig`], read from config.json, and the tensors that it implies.
//!
//! Start with `parse.rs`, which reads config.json and rejects what is not supported; to add an architecture, start with
//! [`Architecture`]. `rope_fields.rs` reads the rotary fields and `rope.rs` computes their frequencies; `quantization.rs` reads the
//! layout of FP8 weights; `tensors.rs` lists the tensors of a model.

mod json_fields;
mod parse;
pub(crate) mod quantization;
pub(crate) mod rope;
mod rope_fields;
pub(crate) mod tensors;

use self::quantization::Quantization;
use self::rope::RopeScaling;

/// The families of decoders that share Llama's forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2, 3, 3.1, 3.2, 3.3.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.
    Qwen2,
    /// Qwen3: Llama with normed queries and keys.
    Qwen3,
}

impl Architecture {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// Returns the class that config.json's `architectures` names.
    fn class_name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// Returns config.json's `model_type`.
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
/// A checkpoint's fingerprint hashes the `Debug` output, so the names of the fields, and of the types in them, must not change.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// The family.
    pub architecture: Architecture,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Size of one head; even.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// The longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// The scaling of the angles for long contexts.
    pub rope_scaling: RopeScaling,
    /// The number of tokens back that a token sees, itself included; all if `None`.
    pub sliding_window: Option<usize>,
    /// True if queries, keys and values have biases.
    pub qkv_bias: bool,
    /// True if the attention's output has a bias.
    pub output_bias: bool,
    /// True if the MLP's products have biases.
    pub mlp_bias: bool,
    /// True if each head's queries and keys are normed before they are rotated.
    pub qk_norm: bool,
    /// The scaling of FP8 weights, if there are any.
    pub quantization: Option<Quantization>,
    /// True if the embedding serves as the head.
    pub tie_word_embeddings: bool,
    /// The beginning-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// The (first) end-of-sequence token.
    pub eos_token_id: Option<u32>,
}

#[cfg(test)]
mod test_configs;
