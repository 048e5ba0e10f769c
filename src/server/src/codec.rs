//! `TextCodec`: encodes texts as token ids, and decodes token ids.

use surprisal_api::TokenizerInfo;
use surprisal_model::TextTokenizer;

/// A codec between texts and token ids: the model's own tokenizer.
pub trait TextCodec: Send + Sync + 'static {
    /// Encodes a text, without special tokens.
    ///
    /// # Errors
    /// A message that explains why the text cannot be encoded.
    fn encode(&self, text: &str) -> Result<Vec<u32>, String>;

    /// Encodes a text as [`encode`](Self::encode) does, and also returns each token's byte range `[from, to)` in the
    /// text.
    ///
    /// # Errors
    /// The same as for [`encode`](Self::encode).
    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String>;

    /// Decodes token ids.
    ///
    /// # Errors
    /// A message that explains why the token ids cannot be decoded.
    fn decode(&self, tokens: &[u32]) -> Result<String, String>;

    /// Decodes generated token ids, skipping special tokens.
    ///
    /// # Errors
    /// The same as for [`decode`](Self::decode).
    fn decode_without_special(&self, tokens: &[u32]) -> Result<String, String> {
        self.decode(tokens)
    }

    /// Returns `true` if [`encode`](Self::encode) adds a space before every text, even before one that begins with a
    /// space.
    fn adds_prefix_space(&self) -> bool {
        false
    }

    /// Returns the id of the BOS token that the model's tokenizer adds before every text; `None` if it adds none.
    fn bos(&self) -> Option<u32>;

    /// Returns the ids of the tokens that end a generated text.
    fn end_token_ids(&self) -> Vec<u32> {
        self.info().eos_token_id.into_iter().collect()
    }

    /// Returns the fields of `/tokenizer_info` that describe the tokenizer. The server sets the vocabulary size and the
    /// maximum length.
    fn info(&self) -> TokenizerInfo;
}

impl TextCodec for TextTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.encode(text).map_err(|error| error.to_string())
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String> {
        self.encode_with_offsets(text).map_err(|error| error.to_string())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        self.decode(tokens).map_err(|error| error.to_string())
    }

    fn decode_without_special(&self, tokens: &[u32]) -> Result<String, String> {
        self.decode_without_special(tokens).map_err(|error| error.to_string())
    }

    fn adds_prefix_space(&self) -> bool {
        self.adds_space()
    }

    fn bos(&self) -> Option<u32> {
        self.added_bos()
    }

    fn end_token_ids(&self) -> Vec<u32> {
        self.end_token_ids().to_vec()
    }

    fn info(&self) -> TokenizerInfo {
        TokenizerInfo {
            tokenizer_class: self.class().map(str::to_owned),
            bos_token: self.bos_id().and_then(|id| self.id_to_token(id)),
            bos_token_id: self.bos_id(),
            eos_token: self.eos_id().and_then(|id| self.id_to_token(id)),
            eos_token_id: self.eos_id(),
            add_bos_token: self.added_bos().is_some(),
            ..TokenizerInfo::default()
        }
    }
}
