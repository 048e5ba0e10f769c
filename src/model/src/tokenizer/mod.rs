//! A model's tokenizer: [`TextTokenizer`], read from tokenizer.json and tokenizer_config.json.
//!
//! Start with [`TextTokenizer::open`]. `special_tokens.rs` has the rules for BOS, for the tokens that end a text, and
//! for a leading space. `vocabulary.rs` has the part of the model's configuration that a tokenizer needs. `files.rs`
//! reads the files.

mod files;
mod special_tokens;
mod vocabulary;

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use self::files::{read_optional_json, read_tokenizer};
use self::special_tokens::{adds_bos, adds_space, end_token_ids, special_token};
use crate::error::Error;

pub use self::vocabulary::Vocabulary;

/// A checkpoint's tokenizer. It never truncates and never pads.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    end_token_ids: Vec<u32>,
    adds_bos: bool,
    adds_space: bool,
    class: Option<String>,
}

impl TextTokenizer {
    /// Reads tokenizer.json, and the special tokens in tokenizer_config.json, config.json and generation_config.json if
    /// they exist.
    ///
    /// # Errors
    ///
    /// Fails if tokenizer.json is missing, if a file cannot be read or parsed, or if BOS is outside the model's
    /// vocabulary.
    pub fn open(dir: &Path, vocabulary: impl Into<Vocabulary>) -> Result<Self, Error> {
        let vocabulary = vocabulary.into();
        let tokenizer = read_tokenizer(dir)?;
        let config = read_optional_json(&dir.join("tokenizer_config.json"))?;
        let id_of = |name: &str| special_token(&config, name).and_then(|token| tokenizer.token_to_id(token));
        let bos = id_of("bos_token").or(vocabulary.bos);
        let eos = id_of("eos_token").or(vocabulary.eos);
        if let Some(id) = bos.filter(|&id| id as usize >= vocabulary.size) {
            let reason = format!("BOS has id {id}, but the model has only {} token ids", vocabulary.size);
            return Err(Error::malformed(&dir.join("tokenizer.json"), reason));
        }
        let (adds_bos, adds_space) = (adds_bos(&tokenizer, &config, bos), adds_space(&tokenizer));
        let end_token_ids = end_token_ids(dir, eos, vocabulary.size)?;
        let class = config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { tokenizer, bos, eos, end_token_ids, adds_bos, adds_space, class })
    }

    /// Returns the token ids of a text, without adding special tokens.
    ///
    /// # Errors
    ///
    /// Fails if the text has a word that is not in the vocabulary, and the tokenizer has no "unknown" token. The error
    /// names the first such word.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|error| self.encoding_error(text, &error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the same token ids as [`encode`](Self::encode), and each token's range of bytes in the text,
    /// `[from, to)`.
    ///
    /// If byte-level BPE splits a character into several tokens, the range of each includes the whole character.
    ///
    /// # Errors
    ///
    /// Same as [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), Error> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| self.encoding_error(text, &error))?;
        let offsets = encoding.get_offsets().iter().map(|&(from, to)| [from, to]).collect();
        Ok((encoding.get_ids().to_vec(), offsets))
    }

    /// Returns the error for a text that cannot be encoded. The error names the first unknown word.
    fn encoding_error(&self, text: &str, error: &tokenizers::Error) -> Error {
        let unknown = text.split_whitespace().find(|word| self.tokenizer.encode_fast(*word, false).is_err());
        Error::Tokenizer(match unknown {
            Some(word) => format!(
                "the word {word:?} is not in this model's vocabulary; use words of the vocabulary or send token ids"
            ),
            None => format!("cannot encode the text: {error}"),
        })
    }

    /// Decodes token ids to text, including special tokens.
    ///
    /// # Errors
    ///
    /// Fails if the tokenizer's decoder rejects the ids.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(tokens, false).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// Decodes token ids to text, omitting special tokens.
    ///
    /// # Errors
    ///
    /// Fails if the tokenizer's decoder rejects the ids.
    pub fn decode_without_special(&self, tokens: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(tokens, true).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// Returns BOS if it is added before every text; otherwise returns `None`.
    pub fn added_bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.adds_bos)
    }

    /// Returns whether the tokenizer adds a space before every text, even one that begins with a space, as Llama 2's
    /// tokenizer.json does.
    pub fn adds_space(&self) -> bool {
        self.adds_space
    }

    /// Returns the beginning-of-sequence token, even if it is not added before every text; `None` if there is none.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// Returns the end-of-sequence token; `None` if there is none.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// Returns every token that ends a text: the tokenizer's end-of-sequence token, and the tokens in `eos_token_id` of
    /// config.json and generation_config.json.
    pub fn end_token_ids(&self) -> &[u32] {
        &self.end_token_ids
    }

    /// Returns a token's spelling in tokenizer.json; `None` if the id is unknown.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// Returns the tokenizer's class in tokenizer_config.json; `None` if there is none.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }
}

#[cfg(test)]
mod tests;
