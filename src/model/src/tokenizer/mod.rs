//! A model's tokenizer: [`TextTokenizer`], read from tokenizer.json and tokenizer_config.json.
//!
//! Start with [`TextTokenizer::open`]. `special_tokens.rs` has the rules for special tokens: those that the tokenizer
//! adds around a text, and those that end a text. `continuation.rs` encodes a text that follows another, and
//! `pieces.rs` decodes tokens one by one. `token_length.rs` bounds the text that one token stands for. `vocabulary.rs`
//! has the part of the model's configuration that a tokenizer needs. `files.rs` reads the files, `charsmap.rs` checks a
//! part of tokenizer.json that the tokenizers library trusts, and `rebuilt.rs` reports what transformers would replace.

mod charsmap;
mod continuation;
mod files;
mod pieces;
mod rebuilt;
mod special_tokens;
mod token_length;
mod vocabulary;

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use self::continuation::ContinuationEncoder;
use self::files::{TokenizerFiles, catch_panic, read_tokenizer};
use self::pieces::PieceDecoder;
use self::rebuilt::{check_prefix_space, warn_if_rebuilt};
use self::special_tokens::{Template, add_named_tokens, end_token_ids};
use self::token_length::{encoding_bytes, max_token_bytes};
use crate::error::Error;

pub use self::pieces::Piece;
pub use self::vocabulary::Vocabulary;

/// A text's token ids, and each token's range of bytes in the text, `[from, to)`.
pub type TokensAndOffsets = (Vec<u32>, Vec<[usize; 2]>);

/// A checkpoint's tokenizer. It never truncates and never pads.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    template: Template,
    continuation: ContinuationEncoder,
    pieces: PieceDecoder,
    bos: Option<u32>,
    eos: Option<u32>,
    end_token_ids: Vec<u32>,
    class: Option<String>,
    chat_template: Option<String>,
    max_token_bytes: Option<usize>,
    encoding_bytes: usize,
}

impl TextTokenizer {
    /// Reads tokenizer.json, and the special tokens and the chat template in the files next to it, if they exist.
    ///
    /// As in the transformers library, tokenizer.json alone decides which tokens are added around a text:
    /// `add_bos_token` and `add_eos_token` in tokenizer_config.json have no effect.
    ///
    /// # Errors
    ///
    /// Fails if tokenizer.json is missing, if a file cannot be read or parsed, if the tokenizers library panics, or if
    /// a token that the tokenizer adds to every text is outside the model's vocabulary.
    pub fn open(dir: &Path, vocabulary: impl Into<Vocabulary>) -> Result<Self, Error> {
        let vocabulary = vocabulary.into();
        catch_panic(dir, || Self::load(dir, vocabulary))
    }

    fn load(dir: &Path, vocabulary: Vocabulary) -> Result<Self, Error> {
        let mut tokenizer = read_tokenizer(dir)?;
        let files = TokenizerFiles::read(dir)?;
        add_named_tokens(&mut tokenizer, &files);
        let malformed = |reason: String| Error::malformed(&dir.join("tokenizer.json"), reason);
        let template = Template::probe(&tokenizer).map_err(malformed)?;
        if let Some(id) = template.ids().find(|&id| id as usize >= vocabulary.size) {
            let size = vocabulary.size;
            return Err(malformed(format!(
                "the tokenizer adds token {id} to every text, but the model has only {size} token ids"
            )));
        }
        template.warn_if_contradicted(&files.config);
        let id_of = |name: &str| files.named_token(name).and_then(|token| tokenizer.token_to_id(&token.content));
        let bos = id_of("bos_token").or(template.prefix.first().copied());
        let eos = id_of("eos_token").or(template.suffix.last().copied());
        let end_token_ids = end_token_ids(dir, eos.or(vocabulary.eos), vocabulary.size)?;
        let class = files.config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned);
        warn_if_rebuilt(class.as_deref(), &tokenizer);
        check_prefix_space(dir, &files, class.as_deref(), &tokenizer)?;
        let (continuation, pieces) = (ContinuationEncoder::probe(&tokenizer), PieceDecoder::probe(&tokenizer));
        let chat_template = files.chat_template().map(str::to_owned);
        let (max_token_bytes, encoding_bytes) = (max_token_bytes(&tokenizer), encoding_bytes(&tokenizer));
        Ok(Self {
            tokenizer,
            template,
            continuation,
            pieces,
            bos,
            eos,
            end_token_ids,
            class,
            chat_template,
            max_token_bytes,
            encoding_bytes,
        })
    }

    /// Returns the token ids of a text from its beginning, without adding special tokens.
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
    pub fn encode_with_offsets(&self, text: &str) -> Result<TokensAndOffsets, Error> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| self.encoding_error(text, &error))?;
        let offsets = encoding.get_offsets().iter().map(|&(from, to)| [from, to]).collect();
        Ok((encoding.get_ids().to_vec(), offsets))
    }

    /// Returns whether a text that follows another text has the tokens that [`encode`](Self::encode) returns. The
    /// tokens differ if the tokenizer marks the beginning of a text, for example with a space, as Llama 2's does.
    pub fn encodes_continuations_alike(&self) -> bool {
        self.continuation.is_alike()
    }

    /// Returns the token ids and offsets of a text that follows another text: for example, `believable` after `un` has
    /// no space before it, although a tokenizer may add one at the beginning of a text. `special` is the special token
    /// before the text, if there is one: some tokenizers mark the text after it like the beginning of a text.
    ///
    /// # Errors
    ///
    /// Fails as [`encode`](Self::encode) does, and if the text cannot be separated from the text before it.
    pub fn encode_continuation(&self, special: Option<u32>, text: &str) -> Result<TokensAndOffsets, Error> {
        if self.continuation.is_alike() {
            return self.encode_with_offsets(text);
        }
        self.continuation.encode(&self.tokenizer, special, text).ok_or_else(|| {
            match self.tokenizer.encode_fast(text, false) {
                Err(error) => self.encoding_error(text, &error),
                Ok(_) => Error::Tokenizer(
                    "the tokenizer joins the beginning of this text to any text before it; send token ids".to_owned(),
                ),
            }
        })
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
        // Some decoders of the library fail on an empty list.
        if tokens.is_empty() {
            return Ok(String::new());
        }
        self.tokenizer.decode(tokens, false).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// Decodes one token, as it stands after other text.
    pub fn piece(&self, token: u32) -> Piece {
        self.pieces.piece(&self.tokenizer, token)
    }

    /// Returns whether decoding omits the space at the beginning of a sequence of tokens, because the tokenizer adds
    /// one to every text.
    pub fn omits_first_space(&self) -> bool {
        self.pieces.omits_first_space()
    }

    /// Returns the tokens that the tokenizer adds before every text: usually none, or BOS.
    pub fn prefix(&self) -> &[u32] {
        &self.template.prefix
    }

    /// Returns the tokens that the tokenizer adds after every text: usually none, rarely EOS.
    pub fn suffix(&self) -> &[u32] {
        &self.template.suffix
    }

    /// Returns the tokenizer's beginning-of-sequence token, even if it is not added before every text; `None` if there
    /// is none.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// Returns the tokenizer's end-of-sequence token; `None` if there is none.
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

    /// Returns the greatest number of bytes of text that one token can stand for; `None` if there is no bound, as for a
    /// tokenizer that drops spaces, or that has one token for any unknown word.
    pub fn max_token_bytes(&self) -> Option<usize> {
        self.max_token_bytes
    }

    /// Returns the memory for encoding a byte of a text, in bytes.
    pub fn encoding_bytes(&self) -> usize {
        self.encoding_bytes
    }

    /// Returns the chat template, in Jinja; `None` if there is none.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}

#[cfg(test)]
mod tests;
