//! Windows: a text's tokens, cut into documents of equal length.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::source::Tokenize;

/// The most bytes of a text that are tokenized in one request.
const MAX_PIECE: usize = 256 * 1024;

/// The spacing of windows in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Spacing {
    /// From the first token to the last, with equal gaps.
    #[default]
    Even,
    /// At random: all placements without overlap are equally likely.
    Random {
        /// Equal seeds, equal windows; each text has its own.
        seed: u64,
    },
}

/// A text's token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizedText {
    tokens: Vec<u32>,
}

impl TokenizedText {
    /// Wraps a text that is tokenized already.
    pub fn new(tokens: Vec<u32>) -> Self {
        Self { tokens }
    }

    /// Reads a UTF-8 file and tokenizes it with `tokenizer`; see [`from_text`](Self::from_text).
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, or is not UTF-8; otherwise what the tokenizer fails with.
    pub async fn read(tokenizer: &impl Tokenize, path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Self::from_text(tokenizer, &text).await
    }

    /// Tokenizes a text, a long one in pieces.
    ///
    /// Pieces end where a line does, the next beginning with no space: there byte-level BPE (Llama 3) splits words anyway,
    /// and the tokens are those of the whole text. Other tokenizers may set a token in every 256 KiB differently.
    ///
    /// # Errors
    /// What the tokenizer fails with.
    pub async fn from_text(tokenizer: &impl Tokenize, text: &str) -> Result<Self, Error> {
        let mut tokens = Vec::new();
        for piece in pieces(text, MAX_PIECE) {
            tokens.extend(tokenizer.tokenize(piece).await?);
        }
        Ok(Self { tokens })
    }

    /// Returns the token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Cuts `count` windows of `length` tokens each, in the text's order and without overlap. `text` is this text's number among
    /// several: windows at random lie elsewhere in each.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `count` or `length` is 0; [`Error::TooShort`] if the text does not hold so many.
    pub fn windows(&self, count: usize, length: usize, spacing: Spacing, text: usize) -> Result<Vec<Vec<u32>>, Error> {
        for (field, value) in [("number of windows", count), ("window length", length)] {
            if value == 0 {
                return Err(Error::invalid(field, value, "at least 1"));
            }
        }
        let needed = count.saturating_mul(length);
        let Some(slack) = self.tokens.len().checked_sub(needed) else {
            return Err(Error::TooShort {
                tokens: self.tokens.len(),
                windows: count,
                length,
                needed,
                most: self.tokens.len() / length,
            });
        };
        let mut windows = Vec::with_capacity(count);
        for (index, gap) in gaps(count, slack, spacing, text).into_iter().enumerate() {
            let start = index * length + gap;
            windows.push(self.tokens[start..start + length].to_vec());
        }
        Ok(windows)
    }
}

/// Returns the number of unused tokens before each window: `count` numbers in 0..=slack, increasing.
fn gaps(count: usize, slack: usize, spacing: Spacing, text: usize) -> Vec<usize> {
    match spacing {
        Spacing::Even => {
            let share = |index| (slack as u128 * index as u128 / (count - 1).max(1) as u128) as usize;
            (0..count).map(share).collect()
        }
        Spacing::Random { seed } => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(text as u64);
            let mut gaps: Vec<usize> = (0..count).map(|_| rng.random_range(0..=slack)).collect();
            gaps.sort_unstable();
            gaps
        }
    }
}

/// Cuts a text into pieces of at most `most` bytes (at least 4, a character): after a line if it can be, else after a
/// space, else anywhere between characters.
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

/// Finds the last place in `text[..end]` after a space, as `is_space` says, and before a character that is no white space.
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

    fn corpus(length: u32) -> TokenizedText {
        TokenizedText::new((0..length).collect())
    }

    #[test]
    fn even_windows_reach_from_end_to_end() {
        let windows = corpus(10).windows(3, 2, Spacing::Even, 0).unwrap();
        assert_eq!(windows, [[0, 1], [4, 5], [8, 9]]);
        assert_eq!(corpus(10).windows(1, 2, Spacing::Even, 0).unwrap(), [[0, 1]]);
    }

    #[test]
    fn a_short_text_is_told_what_would_fit() {
        let error = corpus(99).windows(10, 10, Spacing::Even, 0).unwrap_err().to_string();
        assert!(error.contains("99 tokens") && error.contains("need 100"), "{error}");
        assert!(error.ends_with("take a longer text, at most 9 windows, or shorter splits"), "{error}");
        let error = corpus(9).windows(10, 10, Spacing::Even, 0).unwrap_err().to_string();
        assert!(error.ends_with("take a longer text or shorter splits"), "{error}");
    }

    #[test]
    fn pieces_end_where_lines_do() {
        let text = "one two\n\nthree four\n fiv six\nséven";
        assert_eq!(pieces(text, 16), ["one two\n\n", "three four\n fiv ", "six\nséven"][..].to_vec());
        assert_eq!(pieces("ééééé", 5), ["éé", "éé", "é"]);
        assert!(pieces("", 4).is_empty());
    }

    proptest! {
        #[test]
        fn windows_never_overlap(
            count in 1_usize..20, length in 1_usize..20, slack in 0_u32..100, seed: u64, text: usize, even: bool,
        ) {
            let spacing = if even { Spacing::Even } else { Spacing::Random { seed } };
            let corpus = corpus((count * length) as u32 + slack);
            let windows = corpus.windows(count, length, spacing, text).unwrap();
            prop_assert_eq!(windows.len(), count);
            let tokens = windows.concat();
            prop_assert_eq!(tokens.len(), count * length);
            prop_assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]));
        }

        #[test]
        fn pieces_lose_nothing(text in "[a-c \\nÀ-ÿ]{0,80}", most in 4_usize..20) {
            let pieces = pieces(&text, most);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= most));
            prop_assert_eq!(pieces.concat(), text);
        }
    }
}
