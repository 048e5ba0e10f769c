//! Decoding of single tokens.
//!
//! A token's text depends on its neighbors in two ways: decoders omit the space at the beginning of a sequence, and a
//! character may consist of several tokens. So a token is decoded to bytes, as it stands after other text.

use std::collections::HashMap;
use std::sync::LazyLock;

use tokenizers::{DecoderWrapper, Tokenizer};

use super::special_tokens::encodable_text;

/// The bytes of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The token's bytes, as they stand after other text. They may be a part of a character.
    pub bytes: Vec<u8>,
    /// `true` for a special token, such as BOS, whose bytes are its name.
    pub is_special: bool,
}

/// The way in which a tokenizer's tokens spell bytes.
#[derive(Clone, Debug)]
pub(super) struct PieceDecoder {
    spelling: Spelling,
    omits_first_space: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each character of a token stands for a byte.
    ByteLevel,
    /// A token's text is the text that it adds after another token. `<0x0A>` is a byte if `has_bytes`.
    Text { before: Option<u32>, has_bytes: bool },
}

/// The byte that each character stands for in byte-level BPE, by GPT-2's table: a printable byte of Latin-1 is itself;
/// the others, in order, are the characters from U+0100 on.
static BYTE_OF_CHAR: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=u8::MAX).filter(|byte| !is_printable(byte));
    let printable = (0..=u8::MAX).filter(is_printable).map(|byte| (char::from(byte), byte));
    printable.chain(('\u{100}'..).zip(others)).collect()
});

impl PieceDecoder {
    /// Determines how a tokenizer's tokens spell bytes.
    pub(super) fn probe(tokenizer: &Tokenizer) -> Self {
        let decoders = tokenizer.get_decoder().map(list_decoders).unwrap_or_default();
        let has = |is_wanted: fn(&DecoderWrapper) -> bool| decoders.iter().any(|decoder| is_wanted(decoder));
        let ordinary = encodable_text(tokenizer).and_then(|(_, ids)| ids.first().copied());
        let spelling = if has(|decoder| matches!(decoder, DecoderWrapper::ByteLevel(_))) {
            Spelling::ByteLevel
        } else {
            let has_bytes = has(|decoder| matches!(decoder, DecoderWrapper::ByteFallback(_)));
            Spelling::Text { before: ordinary, has_bytes }
        };
        let mut pieces = Self { spelling, omits_first_space: false };
        pieces.omits_first_space = ordinary.is_some_and(|token| {
            let alone = tokenizer.decode(&[token], false).unwrap_or_default();
            pieces.piece(tokenizer, token).bytes.strip_prefix(b" ") == Some(alone.as_bytes())
        });
        pieces
    }

    /// Returns whether decoding omits the space at the beginning of a sequence.
    pub(super) fn omits_first_space(&self) -> bool {
        self.omits_first_space
    }

    /// Decodes one token. An id that the tokenizer does not know has no bytes.
    pub(super) fn piece(&self, tokenizer: &Tokenizer, token: u32) -> Piece {
        let Some(name) = tokenizer.id_to_token(token) else {
            return Piece { bytes: Vec::new(), is_special: false };
        };
        let is_special = tokenizer.get_added_vocabulary().is_special_token(&name);
        let bytes = match self.spelling {
            _ if is_special => name.into_bytes(),
            Spelling::ByteLevel => byte_level(&name),
            Spelling::Text { before, has_bytes } => match byte_fallback(&name).filter(|_| has_bytes) {
                Some(byte) => vec![byte],
                None => text_after(tokenizer, before, token).unwrap_or(name).into_bytes(),
            },
        };
        Piece { bytes, is_special }
    }
}

/// Lists a decoder's steps.
fn list_decoders(decoder: &DecoderWrapper) -> Vec<&DecoderWrapper> {
    match decoder {
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().flat_map(list_decoders).collect(),
        decoder => vec![decoder],
    }
}

/// Returns the bytes of a byte-level token. As in the tokenizers library, a token with a character outside the table
/// stands for itself.
fn byte_level(name: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = name.chars().map(|char| BYTE_OF_CHAR.get(&char).copied()).collect();
    bytes.unwrap_or_else(|| name.as_bytes().to_vec())
}

/// Iterates over the characters that stand for bytes in byte-level BPE.
pub(super) fn byte_chars() -> impl Iterator<Item = char> {
    BYTE_OF_CHAR.keys().copied()
}

/// Returns the byte that a name such as `<0x0A>` stands for.
fn byte_fallback(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// Returns the text that a token adds after another token.
fn text_after(tokenizer: &Tokenizer, before: Option<u32>, token: u32) -> Option<String> {
    let decode = |tokens: &[u32]| tokenizer.decode(tokens, false).ok();
    let Some(before) = before else { return decode(&[token]) };
    decode(&[before, token])?.strip_prefix(&decode(&[before])?).map(str::to_owned)
}
