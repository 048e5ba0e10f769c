//! A text's tokens. Long texts are tokenized in pieces.

use std::ops::Range;
use std::path::Path;

use crate::corpus::decode::read_text;
use crate::error::Error;
use crate::source::Tokenize;

/// The maximum size in bytes of the text in one tokenization request.
const MAX_PIECE: usize = 256 * 1024;

/// The token ids of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizedText {
    tokens: Vec<u32>,
    /// The number of tokens up to the end of each piece; empty for tokens without a text.
    ends: Vec<usize>,
}

impl TokenizedText {
    /// Wraps the tokens of a text that is already tokenized.
    pub fn new(tokens: Vec<u32>) -> Self {
        Self { tokens, ends: Vec::new() }
    }

    /// Reads a text file in UTF-8, or in UTF-16 with a byte-order mark, and tokenizes it with `tokenizer`; see
    /// [`from_text`](Self::from_text). The file may be compressed with gzip or Zstandard.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read or decoded; the tokenizer's error if it fails.
    pub async fn read(tokenizer: &impl Tokenize, path: &Path) -> Result<Self, Error> {
        let text = read_text(path, None).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Self::from_text(tokenizer, &text).await
    }

    /// Tokenizes a text. A long text is tokenized in pieces.
    ///
    /// If possible, a piece ends after a line break and the next piece does not begin with white space. Byte-level BPE
    /// tokenizers (such as Llama 3's) never form a token across such a cut, so the tokens are the same as if the text
    /// were tokenized whole. With other tokenizers, the tokens may differ at each cut, about every 256 KiB.
    ///
    /// # Errors
    /// The tokenizer's error if it fails.
    pub async fn from_text(tokenizer: &impl Tokenize, text: &str) -> Result<Self, Error> {
        let (mut tokens, mut ends) = (Vec::new(), Vec::new());
        for piece in pieces(text, MAX_PIECE) {
            tokens.extend(tokenizer.tokenize(piece).await?);
            ends.push(tokens.len());
        }
        Ok(Self { tokens, ends })
    }

    /// Returns the pieces of the text, which must be the text that these are the tokens of, each with the indices of
    /// its tokens.
    pub(crate) fn pieces<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (&'a str, Range<usize>)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let tokens = starts.zip(&self.ends).map(|(start, &end)| start..end);
        pieces(text, MAX_PIECE).into_iter().zip(tokens)
    }

    /// Returns the token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

/// Cuts a text into pieces of at most `most` bytes. `most` must be at least 4, the size of the longest character.
/// Cuts after a line break if possible, otherwise after white space, otherwise between any two characters.
fn pieces(text: &str, most: usize) -> Vec<&str> {
    let mut rest = text;
    let mut pieces = Vec::new();
    while rest.len() > most {
        let end = (0..=most).rev().find(|&at| rest.is_char_boundary(at)).unwrap_or(most);
        let after_line = last_break(rest, end, |c| c == '\n');
        let cut = after_line.or_else(|| last_break(rest, end, char::is_whitespace)).unwrap_or(end);
        let (piece, tail) = rest.split_at(cut);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Finds the last position in `text[..end]` that directly follows a character for which `is_space` returns `true`, and
/// is not followed by white space.
fn last_break(text: &str, end: usize, is_space: impl Fn(char) -> bool) -> Option<usize> {
    for (index, c) in text[..end].char_indices().rev() {
        let after = index + c.len_utf8();
        let next = text[after..].chars().next();
        if is_space(c) && next.is_none_or(|next| !next.is_whitespace()) {
            return Some(after);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_end_after_lines() {
        let text = "one two\n\nthree four\n fiv six\nséven";
        assert_eq!(pieces(text, 16), ["one two\n\n", "three four\n fiv ", "six\nséven"][..].to_vec());
        assert_eq!(pieces("ééééé", 5), ["éé", "éé", "é"]);
        assert!(pieces("", 4).is_empty());
    }

    proptest! {
        #[test]
        fn pieces_contain_the_whole_text(text in "[a-c \\nÀ-ÿ]{0,80}", most in 4_usize..20) {
            let pieces = pieces(&text, most);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= most));
            prop_assert_eq!(pieces.concat(), text);
        }
    }
}
