//! `TextCodec`: encodes texts as token ids, and decodes token ids.

use surprisal_api::TokenizerInfo;
use surprisal_model::{Piece, TextTokenizer, TokensAndOffsets};

/// A codec between texts and token ids: the model's own tokenizer.
pub trait TextCodec: Send + Sync + 'static {
    /// Encodes a text from its beginning, without special tokens.
    ///
    /// # Errors
    /// A message that explains why the text cannot be encoded.
    fn encode(&self, text: &str) -> Result<Vec<u32>, String>;

    /// Encodes a text as [`encode`](Self::encode) does, and also returns each token's byte range `[from, to)` in the
    /// text.
    ///
    /// # Errors
    /// The same as for [`encode`](Self::encode).
    fn encode_with_offsets(&self, text: &str) -> Result<TokensAndOffsets, String>;

    /// Returns `true` if [`encode_continuation`](Self::encode_continuation) returns the same tokens as
    /// [`encode`](Self::encode).
    fn encodes_continuations_alike(&self) -> bool {
        true
    }

    /// Encodes a text that follows another text, and also returns each token's byte range `[from, to)` in the text.
    /// `special` is the special token before the text, if there is one.
    ///
    /// # Errors
    /// The same as for [`encode`](Self::encode), or a message that explains why the text cannot be separated from the
    /// text before it.
    fn encode_continuation(&self, _special: Option<u32>, text: &str) -> Result<TokensAndOffsets, String> {
        self.encode_with_offsets(text)
    }

    /// Decodes token ids.
    ///
    /// # Errors
    /// A message that explains why the token ids cannot be decoded.
    fn decode(&self, tokens: &[u32]) -> Result<String, String>;

    /// Decodes one token, as it stands after other text.
    fn piece(&self, token: u32) -> Piece;

    /// Returns a token as the vocabulary spells it, such as `Ġwas` or `▁was`; `None` if the vocabulary does not have
    /// it.
    fn spelling(&self, token: u32) -> Option<String> {
        self.decode(&[token]).ok()
    }

    /// Returns `true` if decoding omits the space at the beginning of a sequence of tokens.
    fn omits_first_space(&self) -> bool {
        false
    }

    /// Returns the greatest number of bytes of text that one token can stand for; `None` if there is no bound.
    fn max_token_bytes(&self) -> Option<usize> {
        None
    }

    /// Returns the memory for encoding a byte of a text, in bytes.
    fn encoding_bytes(&self) -> usize {
        256
    }

    /// Returns the tokens that the model's tokenizer adds before every text: usually none, or BOS.
    fn prefix(&self) -> &[u32];

    /// Returns the tokens that the model's tokenizer adds after every text: usually none.
    fn suffix(&self) -> &[u32] {
        &[]
    }

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

    fn encode_with_offsets(&self, text: &str) -> Result<TokensAndOffsets, String> {
        self.encode_with_offsets(text).map_err(|error| error.to_string())
    }

    fn encodes_continuations_alike(&self) -> bool {
        self.encodes_continuations_alike()
    }

    fn encode_continuation(&self, special: Option<u32>, text: &str) -> Result<TokensAndOffsets, String> {
        self.encode_continuation(special, text).map_err(|error| error.to_string())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        self.decode(tokens).map_err(|error| error.to_string())
    }

    fn piece(&self, token: u32) -> Piece {
        self.piece(token)
    }

    fn spelling(&self, token: u32) -> Option<String> {
        self.id_to_token(token)
    }

    fn omits_first_space(&self) -> bool {
        self.omits_first_space()
    }

    fn max_token_bytes(&self) -> Option<usize> {
        self.max_token_bytes()
    }

    fn encoding_bytes(&self) -> usize {
        self.encoding_bytes()
    }

    fn prefix(&self) -> &[u32] {
        self.prefix()
    }

    fn suffix(&self) -> &[u32] {
        self.suffix()
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
            chat_template: self.chat_template().map(str::to_owned),
            add_bos_token: self.bos_id().is_some_and(|bos| self.prefix() == [bos]),
            ..TokenizerInfo::default()
        }
    }
}
