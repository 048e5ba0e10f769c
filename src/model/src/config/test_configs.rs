//! Configurations for the tests of this module.

use serde_json::{Value, json};

use super::LlamaConfig;
use crate::error::Error;

/// Returns the config.json of a small Llama model, with only the required fields and the special tokens.
pub(super) fn small_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": [2, 3],
    })
}

/// Parses the small model's config.json with one field changed.
pub(super) fn parse_with(field: &str, value: Value) -> Result<LlamaConfig, Error> {
    let mut config = small_config();
    config[field] = value;
    LlamaConfig::parse(&config.to_string())
}
