//! The size of a model's vocabulary, and the special tokens in its config.json.

use std::path::Path;

use super::files::read_optional_json;
use crate::config::LlamaConfig;
use crate::error::Error;

/// The part of a model's configuration that its tokenizer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Number of token ids.
    pub size: usize,
    /// The beginning-of-sequence token in config.json, which tokenizer_config.json may override; `None` if there is
    /// none.
    pub bos: Option<u32>,
    /// The end-of-sequence token in config.json, which tokenizer_config.json may override; `None` if there is none.
    pub eos: Option<u32>,
}

impl Vocabulary {
    /// Reads the special tokens from config.json, if the file exists. The model may have any architecture; `size` is
    /// its number of token ids.
    ///
    /// # Errors
    ///
    /// Fails if config.json cannot be read or is not JSON.
    pub fn read(dir: &Path, size: usize) -> Result<Self, Error> {
        let config = read_optional_json(&dir.join("config.json"))?;
        let id = |name: &str| {
            let value = config.get(name)?;
            value.as_u64().or_else(|| value.get(0)?.as_u64()).and_then(|id| u32::try_from(id).ok())
        };
        Ok(Self { size, bos: id("bos_token_id"), eos: id("eos_token_id") })
    }
}

impl From<&LlamaConfig> for Vocabulary {
    fn from(config: &LlamaConfig) -> Self {
        Self { size: config.vocab_size, bos: config.bos_token_id, eos: config.eos_token_id }
    }
}
