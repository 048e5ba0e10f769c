//! Places: the text of a window, and the ranges of the window's tokens in that text.

use std::ops::Range;
use std::sync::Arc;

use crate::corpus::tokenized_text::TokenizedText;
use crate::error::Error;
use crate::source::{Tokenize, TokensAndOffsets};

/// The origin of a text: a file, or a part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextOrigin {
    /// The file's path below the nearest folder that contains all files of the corpus.
    pub(crate) file: Arc<str>,
    /// The index of the text among the rows of the file, from 0; `None` if the file is one text.
    pub(crate) row: Option<usize>,
    /// The offset of the text in the row or file, in bytes; 0 unless the corpus cuts texts into pieces.
    pub(crate) byte: usize,
    /// The same offset in Unicode characters.
    pub(crate) character: usize,
}

/// The place of a window in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WindowPlace {
    /// The index of the text among those that windows were cut from.
    pub(crate) text: usize,
    /// The ranges of the window's tokens; `None` if the tokenizer does not state them.
    pub(crate) ranges: Option<TokenRanges>,
}

/// The ranges of a window's tokens in its text, in bytes and in Unicode characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenRanges {
    /// The byte and the character that the ranges are relative to.
    origin: [usize; 2],
    /// The ends of each token's ranges, which [`TokenRange`] names.
    relative: Vec<[u32; 4]>,
}

/// The range of one token in its text. Tokens that share a character have the same range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRange {
    pub(crate) bytes: Range<usize>,
    pub(crate) characters: Range<usize>,
}

impl TokenRanges {
    /// Returns the ranges of the window's tokens, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = TokenRange> {
        let [byte, character] = self.origin;
        self.relative.iter().map(move |ends| {
            let [from_byte, to_byte, from_character, to_character] = ends.map(|end| end as usize);
            TokenRange {
                bytes: byte + from_byte..byte + to_byte,
                characters: character + from_character..character + to_character,
            }
        })
    }

    /// Adds the range of the next token. Returns `None` if the window's text is longer than `u32` can express.
    pub(crate) fn push(&mut self, TokenRange { bytes, characters }: TokenRange) -> Option<()> {
        if self.relative.is_empty() {
            self.origin = [bytes.start, characters.start];
        }
        let [byte, character] = self.origin;
        let relative = |end: usize, origin: usize| u32::try_from(end.checked_sub(origin)?).ok();
        self.relative.push([
            relative(bytes.start, byte)?,
            relative(bytes.end, byte)?,
            relative(characters.start, character)?,
            relative(characters.end, character)?,
        ]);
        Some(())
    }
}

impl TokenizedText {
    /// Returns the ranges of the tokens of windows of `length` tokens that begin at the tokens `starts`, in increasing
    /// order. Tokenizes again only the pieces of the text that contain windows. Returns `None` for every window if the
    /// tokenizer does not state ranges, if they are not ranges of the text, or if the tokens are not those of before.
    ///
    /// # Errors
    /// The tokenizer's error if it fails.
    pub(crate) async fn token_ranges(
        &self,
        tokenizer: &impl Tokenize,
        text: &str,
        starts: &[usize],
        length: usize,
    ) -> Result<Vec<Option<TokenRanges>>, Error> {
        let mut windows = vec![TokenRanges::default(); starts.len()];
        let (mut byte, mut character) = (0, 0);
        for (piece, tokens) in self.pieces(text) {
            let overlap = |start: usize| start.max(tokens.start)..(start + length).min(tokens.end);
            if starts.iter().any(|&start| !overlap(start).is_empty()) {
                let found = tokenizer.tokenize_with_offsets(piece).await?;
                let found = found.filter(|found| is_consistent(found, piece, &self.tokens()[tokens.clone()]));
                let Some((_, offsets)) = found else { return Ok(vec![None; starts.len()]) };
                let characters = characters_before(piece);
                for (&start, window) in starts.iter().zip(&mut windows) {
                    for at in overlap(start) {
                        let [from, to] = offsets[at - tokens.start];
                        let range = TokenRange {
                            bytes: byte + from..byte + to,
                            characters: character + characters[from]..character + characters[to],
                        };
                        if window.push(range).is_none() {
                            return Ok(vec![None; starts.len()]);
                        }
                    }
                }
            }
            byte += piece.len();
            character += piece.chars().count();
        }
        Ok(windows.into_iter().map(Some).collect())
    }
}

/// Checks that a tokenizer returned `tokens` again, each with a range of whole characters of the text.
fn is_consistent((again, offsets): &TokensAndOffsets, text: &str, tokens: &[u32]) -> bool {
    again == tokens && offsets.len() == tokens.len() && offsets.iter().all(|&[from, to]| text.get(from..to).is_some())
}

/// Returns, for each byte offset in a text, the number of characters that begin before it.
fn characters_before(text: &str) -> Vec<usize> {
    let mut counts = Vec::with_capacity(text.len() + 1);
    let mut count = 0;
    for byte in text.bytes() {
        counts.push(count);
        // Every byte of a character except the first is a continuation byte: 10xxxxxx.
        count += usize::from(byte & 0xC0 != 0x80);
    }
    counts.push(count);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer with one token per character, except that `é` has two tokens, as in byte-level tokenizers.
    struct Letters;

    impl Tokenize for Letters {
        async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
            Ok(self.tokenize_with_offsets(text).await?.unwrap().0)
        }

        async fn tokenize_with_offsets(&self, text: &str) -> Result<Option<TokensAndOffsets>, Error> {
            let mut found = (Vec::new(), Vec::new());
            for (at, letter) in text.char_indices() {
                for _ in 0..letter.len_utf8() {
                    found.0.push(letter as u32);
                    found.1.push([at, at + letter.len_utf8()]);
                }
            }
            Ok(Some(found))
        }
    }

    /// A tokenizer that states no ranges.
    struct Silent;

    impl Tokenize for Silent {
        async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
            Letters.tokenize(text).await
        }
    }

    #[tokio::test]
    async fn ranges_select_the_text_of_each_token_across_pieces() {
        // Longer than one piece, with line breaks that pieces end at.
        let text = "a é\n".repeat(100_000);
        let tokenized = TokenizedText::from_text(&Letters, &text).await.unwrap();
        assert!(tokenized.pieces(&text).count() > 1);
        let ends: Vec<usize> = tokenized.pieces(&text).map(|(_, tokens)| tokens.end).collect();
        // The second window crosses the end of the first piece.
        let starts = [3, ends[0] - 7, ends[1] - 2];
        let length = 20;
        let windows = tokenized.token_ranges(&Letters, &text, &starts[..2], length).await.unwrap();
        let all: Vec<char> = text.chars().collect();
        for (window, start) in windows.iter().zip(starts) {
            let ranges: Vec<TokenRange> = window.as_ref().unwrap().iter().collect();
            assert_eq!(ranges.len(), length);
            for (at, range) in ranges.into_iter().enumerate() {
                let letter = char::from_u32(tokenized.tokens()[start + at]).unwrap();
                assert_eq!(text[range.bytes], letter.to_string());
                assert_eq!(all[range.characters], [letter]);
            }
        }
        assert_eq!(tokenized.token_ranges(&Silent, &text, &starts, 1).await.unwrap(), [None, None, None]);
    }

    #[tokio::test]
    async fn a_tokenizer_that_contradicts_itself_has_no_ranges() {
        let tokenized = TokenizedText::from_text(&Letters, "abc").await.unwrap();
        assert_eq!(tokenized.token_ranges(&Letters, "abd", &[0], 2).await.unwrap(), [None]);
    }
}
