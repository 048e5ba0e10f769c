//! Sizes of windows: the bytes and characters of the text that their tokens cover.

use crate::corpus::collection::Documents;
use crate::corpus::places::{TokenRange, TokenRanges};
use crate::plan::WindowSize;

impl Documents {
    /// Returns the size of each window; `None` if the tokenizer does not state the ranges of all tokens.
    pub(crate) fn sizes(&self) -> Option<Vec<WindowSize>> {
        self.places.iter().map(|place| size(place.ranges.as_ref()?)).collect()
    }
}

/// Returns the size of a window: the growth of the end of the ranges.
///
/// Each token thereby counts the text between the end of the token before it and its own end. Text that no range
/// contains, such as white space that some tokenizers leave out of the ranges, belongs to the token after it, and a
/// character that several tokens share counts once.
fn size(ranges: &TokenRanges) -> Option<WindowSize> {
    let all: Vec<TokenRange> = ranges.iter().collect();
    let (first, last) = (all.first()?, all.last()?);
    let before_tail = &all[WindowSize::tail_start(all.len()) - 1];
    Some(WindowSize {
        bytes: last.bytes.end.checked_sub(first.bytes.start)?,
        characters: last.characters.end.checked_sub(first.characters.start)?,
        tail_bytes: last.bytes.end.checked_sub(before_tail.bytes.end)?,
        tail_characters: last.characters.end.checked_sub(before_tail.characters.end)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `é` has two tokens, and the ranges leave out the space before the last token.
    #[test]
    fn shared_characters_count_once_and_spaces_between_ranges_count() {
        let mut ranges = TokenRanges::default();
        for (bytes, characters) in [(7..9, 5..6), (7..9, 5..6), (9..10, 6..7), (11..14, 8..11)] {
            ranges.push(TokenRange { bytes, characters }).unwrap();
        }
        let expected = WindowSize { bytes: 7, characters: 6, tail_bytes: 5, tail_characters: 5 };
        assert_eq!(size(&ranges), Some(expected));
        assert_eq!(size(&TokenRanges::default()), None);
    }
}
