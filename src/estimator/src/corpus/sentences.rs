//! Pieces of whole sentences, cut from texts.

use unicode_segmentation::UnicodeSegmentation;

/// Cuts a text into consecutive pieces. Each piece has just enough whole sentences for at least `words` words. The rest
/// at the end of the text is omitted.
pub(crate) fn for_each_piece<'a>(text: &'a str, words: usize, visit: &mut impl FnMut(&'a str)) {
    let (mut start, mut end, mut count) = (0, 0, 0);
    for sentence in text.split_sentence_bounds() {
        end += sentence.len();
        count += sentence.unicode_words().count();
        if count >= words {
            visit(text[start..end].trim());
            (start, count) = (end, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_are_whole_sentences() {
        let mut found = Vec::new();
        for_each_piece("It was dark. Was it? Yes, it was! And cold. Very.", 4, &mut |piece: &str| {
            found.push(piece.to_owned());
        });
        assert_eq!(found, ["It was dark. Was it?", "Yes, it was! And cold."]);
    }

    proptest! {
        #[test]
        fn pieces_omit_only_the_end(text in "[a-c .!?\\n]{0,200}", words in 1_usize..9) {
            let mut found = Vec::new();
            for_each_piece(&text, words, &mut |piece: &str| found.push(piece.to_owned()));
            let mut rest = text.as_str();
            for piece in &found {
                prop_assert!(piece.unicode_words().count() >= words);
                let at = rest.find(piece.as_str()).unwrap();
                prop_assert!(rest[..at].trim().is_empty());
                rest = &rest[at + piece.len()..];
            }
            prop_assert!(rest.unicode_words().count() < words);
        }
    }
}
