//! Texts of tokens, which join to the text of the sequence.

use std::collections::VecDeque;
use std::sync::Arc;

use surprisal_model::Piece;

use crate::codec::TextCodec;

/// The number of tokens before a sequence that may contain the beginning of its first character.
const LOOK_BACK: usize = 8;

/// A decoder that reads a sequence token by token, and divides its text among the tokens.
///
/// A character of several tokens belongs to the last of them, and the texts of the others are empty. Special tokens
/// count as text: their names.
#[derive(Clone)]
pub(crate) struct TokenTexts {
    codec: Arc<dyn TextCodec>,
    /// The bytes so far of a character that is not complete.
    partial: Vec<u8>,
    /// `true` if the space at the beginning of the next ordinary token is omitted.
    omits_space: bool,
    /// Texts of the next tokens, where they are known.
    known: VecDeque<String>,
}

impl TokenTexts {
    /// Returns a decoder for tokens that follow `before`, which may be empty.
    pub(crate) fn after(codec: &Arc<dyn TextCodec>, before: &[u32]) -> Self {
        let omits_space = codec.omits_first_space() && is_beginning(codec.as_ref(), before);
        let mut texts = Self { codec: Arc::clone(codec), partial: Vec::new(), omits_space, known: VecDeque::new() };
        for &token in &before[before.len().saturating_sub(LOOK_BACK)..] {
            texts.push(token);
        }
        texts.omits_space = omits_space;
        texts
    }

    /// Sets the texts of the next tokens.
    pub(crate) fn with_known(self, texts: Vec<String>) -> Self {
        Self { known: texts.into(), ..self }
    }

    /// Reads a token; returns its text.
    pub(crate) fn push(&mut self, token: u32) -> String {
        let piece = self.codec.piece(token);
        let (text, partial) = self.decode(&piece);
        self.partial = partial;
        self.omits_space &= piece.is_special;
        self.known.pop_front().unwrap_or(text)
    }

    /// Returns the text that a token would have at this position.
    pub(crate) fn peek(&self, token: u32) -> String {
        self.decode(&self.codec.piece(token)).0
    }

    /// Returns the text that a piece completes, and the bytes of a character that is not complete.
    fn decode(&self, piece: &Piece) -> (String, Vec<u8>) {
        let bytes = match piece.bytes.strip_prefix(b" ") {
            Some(rest) if self.omits_space && !piece.is_special => rest,
            _ => &piece.bytes,
        };
        complete_characters(&[&self.partial, bytes].concat())
    }
}

/// Returns vLLM's label for a token whose text is ambiguous or unknown, or whose id is requested.
pub(crate) fn token_id_label(token: u32) -> String {
    format!("token_id:{token}")
}

/// Returns `true` if text after these tokens begins the whole text: only special tokens precede it.
fn is_beginning(codec: &dyn TextCodec, before: &[u32]) -> bool {
    before.iter().all(|&token| codec.piece(token).is_special)
}

/// Divides a text among its tokens, which the codec encoded from it, so that the tokens' texts join to the text.
/// `offsets` returns the tokens' byte ranges in the text, which are needed if the tokens spell another text.
pub(crate) fn divide(
    codec: &dyn TextCodec,
    text: &str,
    tokens: &[u32],
    offsets: impl FnOnce() -> Vec<[usize; 2]>,
) -> Vec<String> {
    let mut pieces: Vec<Vec<u8>> = tokens.iter().map(|&token| codec.piece(token).bytes).collect();
    let is_text = |pieces: &[Vec<u8>]| pieces.iter().flatten().eq(text.as_bytes());
    // The tokenizer may have added a space at the beginning.
    if !is_text(&pieces)
        && let Some(first) = pieces.first_mut()
        && first.starts_with(b" ")
    {
        first.remove(0);
    }
    if is_text(&pieces) { join_characters(&pieces) } else { slice(text, &offsets()) }
}

/// Returns each piece's text, of pieces that join to a text. A character of several pieces belongs to the last of them.
fn join_characters(pieces: &[Vec<u8>]) -> Vec<String> {
    let mut partial = Vec::new();
    let mut texts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        partial.extend_from_slice(piece);
        let (text, rest) = complete_characters(&partial);
        texts.push(text);
        partial = rest;
    }
    texts
}

/// Cuts a text at its tokens' ends. Text between two tokens belongs to the second; a character of several tokens
/// belongs to the last of them.
fn slice(text: &str, offsets: &[[usize; 2]]) -> Vec<String> {
    let mut texts = Vec::with_capacity(offsets.len());
    let mut start = 0;
    for (index, &[_, end]) in offsets.iter().enumerate() {
        let next = offsets.get(index + 1).map_or(text.len(), |next| next[0].min(end));
        let end = (start..=next.max(start)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(start);
        texts.push(text[start..end].to_owned());
        start = end;
    }
    texts
}

/// Splits bytes into text and the beginning of a character that is not complete. Bytes that cannot be part of a
/// character become U+FFFD.
fn complete_characters(bytes: &[u8]) -> (String, Vec<u8>) {
    let mut text = String::with_capacity(bytes.len());
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        let is_incomplete = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if chunks.peek().is_none() && is_incomplete {
            return (text, invalid.to_vec());
        }
        if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    (text, Vec::new())
}
