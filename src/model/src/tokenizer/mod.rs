//! A model's tokenizer: [`TextTokenizer`], read from tokenizer.json and tokenizer_config.json.
//!
//! Start with [`TextTokenizer::open`]. `special_tokens.rs` has the rules for BOS, for the tokens that end a text, and for a leading
//! space; `vocabulary.rs` has what a tokenizer needs of its model; `files.rs` reads the files.

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
    /// Reads tokenizer.json, and tokenizer_config.json if there is one.
    ///
    /// # Errors
    ///
    /// A file that is missing, cannot be read or cannot be parsed, or a token id outside the model's vocabulary.
    pub fn open(dir: &Path, vocabulary: impl Into<Vocabulary>) -> Result<Self, Error> {
        let vocabulary = vocabulary.into();
        let tokenizer = read_tokenizer(dir)?;
        let config = read_optional_json(&dir.join("tokenizer_config.json"))?;
        let id_of = |name: &str| special_token(&config, name).and_then(|token| tokenizer.token_to_id(token));
        let bos = id_of("bos_token").or(vocabulary.bos);
        let eos = id_of("eos_token").or(vocabulary.eos);
        if let Some(id) = bos.filter(|&id| id as usize >= vocabulary.size) {
            let reason = format!("BOS has id {id}, but the model has {} ids", vocabulary.size);
            return Err(Error::malformed(&dir.join("tokenizer.json"), reason));
        }
        let (adds_bos, adds_space) = (adds_bos(&tokenizer, &config, bos), adds_space(&tokenizer));
        let end_token_ids = end_token_ids(dir, eos, vocabulary.size)?;
        let class = config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { tokenizer, bos, eos, end_token_ids, adds_bos, adds_space, class })
    }

    /// Returns the token ids of a text, without special tokens added.
    ///
    /// # Errors
    ///
    /// The tokenizer has neither a token for some word nor an "unknown" token; the first such word is named.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|error| self.encoding_error(text, &error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Like [`encode`](Self::encode), but also returns each token's bytes in the text, `[from, to)`.
    ///
    /// Tokens that share a character (byte-level BPE cuts some) share its bytes.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), Error> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| self.encoding_error(text, &error))?;
        let offsets = encoding.get_offsets().iter().map(|&(from, to)| [from, to]).collect();
        Ok((encoding.get_ids().to_vec(), offsets))
    }

    /// The error of a text that cannot be encoded; names the first word that cannot.
    fn encoding_error(&self, text: &str, error: &tokenizers::Error) -> Error {
        let unknown = text.split_whitespace().find(|word| self.tokenizer.encode_fast(*word, false).is_err());
        Error::Tokenizer(match unknown {
            Some(word) => format!("the word {word:?} is not in this model's vocabulary: {error}"),
            None => format!("the text cannot be encoded: {error}"),
        })
    }

    /// Returns the text of token ids, special tokens included.
    ///
    /// # Errors
    ///
    /// The tokenizer's decoder rejects them.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(tokens, false).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// Returns the text of token ids, special tokens omitted.
    ///
    /// # Errors
    ///
    /// The tokenizer's decoder rejects them.
    pub fn decode_without_special(&self, tokens: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(tokens, true).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// Returns the token that the model puts before every text, if it puts one.
    pub fn added_bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.adds_bos)
    }

    /// Returns whether the tokenizer puts a space before every text, even before one that begins with a space, as Llama 2's
    /// tokenizer.json does.
    pub fn adds_space(&self) -> bool {
        self.adds_space
    }

    /// Returns the beginning-of-sequence token, whether or not the model puts it before every text.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// Returns the end-of-sequence token.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// Returns every token that ends a text: the tokenizer's end of sequence, and those in config.json and generation_config.json.
    pub fn end_token_ids(&self) -> &[u32] {
        &self.end_token_ids
    }

    /// Returns a token as tokenizer.json spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// Returns the class in tokenizer_config.json.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }
}

#[cfg(test)]
mod tests;
