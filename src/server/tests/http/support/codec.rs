//! Codecs whose tokens are bytes.

use surprisal_api::TokenizerInfo;
use surprisal_model::{Piece, TokensAndOffsets};
use surprisal_server::TextCodec;

/// A codec whose tokens are bytes; NUL has no encoding. The field is the BOS that the tokenizer adds before texts, if any.
pub(crate) struct ByteCodec(pub(crate) Option<u32>);

/// Returns a token's byte; a token above 255 is special.
fn byte_piece(token: u32) -> Piece {
    match u8::try_from(token) {
        Ok(byte) => Piece { bytes: vec![byte], is_special: false },
        Err(_) => Piece { bytes: format!("<{token}>").into_bytes(), is_special: true },
    }
}

impl TextCodec for ByteCodec {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        if text.contains('\0') {
            return Err("NUL has no encoding".to_owned());
        }
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_with_offsets(&self, text: &str) -> Result<TokensAndOffsets, String> {
        Ok((self.encode(text)?, (0..text.len()).map(|at| [at, at + 1]).collect()))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        let byte = |&token: &u32| u8::try_from(token).map_err(|_| format!("{token} is not a byte"));
        let bytes = tokens.iter().map(byte).collect::<Result<_, _>>()?;
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }

    fn piece(&self, token: u32) -> Piece {
        byte_piece(token)
    }

    fn spelling(&self, token: u32) -> Option<String> {
        if Some(token) == self.0 { self.info().bos_token } else { self.decode(&[token]).ok() }
    }

    fn prefix(&self) -> &[u32] {
        self.0.as_slice()
    }

    fn info(&self) -> TokenizerInfo {
        let bos_token = self.0.map(|_| "<s>".to_owned());
        TokenizerInfo { bos_token, bos_token_id: self.0, add_bos_token: self.0.is_some(), ..TokenizerInfo::default() }
    }
}

/// A codec whose tokens are bytes, with a space before every text.
pub(crate) struct SpacePrefixCodec;

impl TextCodec for SpacePrefixCodec {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        ByteCodec(None).encode(&format!(" {text}"))
    }

    /// Returns the same offsets for the space and the byte after it: those of the first byte.
    fn encode_with_offsets(&self, text: &str) -> Result<TokensAndOffsets, String> {
        let offsets = (0..=text.len()).map(|at| [at.saturating_sub(1), at.max(1)]).collect();
        Ok((self.encode(text)?, offsets))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        ByteCodec(None).decode(tokens)
    }

    fn encodes_continuations_alike(&self) -> bool {
        false
    }

    fn encode_continuation(&self, _special: Option<u32>, text: &str) -> Result<TokensAndOffsets, String> {
        ByteCodec(None).encode_with_offsets(text)
    }

    fn piece(&self, token: u32) -> Piece {
        byte_piece(token)
    }

    fn omits_first_space(&self) -> bool {
        true
    }

    fn prefix(&self) -> &[u32] {
        &[]
    }

    fn info(&self) -> TokenizerInfo {
        TokenizerInfo::default()
    }
}
