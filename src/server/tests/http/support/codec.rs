//! Codecs whose tokens are bytes.

use surprisal_api::TokenizerInfo;
use surprisal_server::TextCodec;

/// A codec whose tokens are bytes; NUL has no encoding. The field is the BOS that the server adds before texts, if any.
pub(crate) struct ByteCodec(pub(crate) Option<u32>);

impl TextCodec for ByteCodec {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        if text.contains('\0') {
            return Err("NUL has no encoding".to_owned());
        }
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String> {
        Ok((self.encode(text)?, (0..text.len()).map(|at| [at, at + 1]).collect()))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        let byte = |&token: &u32| u8::try_from(token).map_err(|_| format!("{token} is not a byte"));
        let bytes = tokens.iter().map(byte).collect::<Result<_, _>>()?;
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }

    fn decode_without_special(&self, tokens: &[u32]) -> Result<String, String> {
        let bytes: Vec<u8> = tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn bos(&self) -> Option<u32> {
        self.0
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
    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String> {
        let offsets = (0..=text.len()).map(|at| [at.saturating_sub(1), at.max(1)]).collect();
        Ok((self.encode(text)?, offsets))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        ByteCodec(None).decode(tokens)
    }

    fn adds_prefix_space(&self) -> bool {
        true
    }

    fn bos(&self) -> Option<u32> {
        None
    }

    fn info(&self) -> TokenizerInfo {
        ByteCodec(None).info()
    }
}
