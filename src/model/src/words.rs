//! Readable names for the oracle's symbols: distinct, pronounceable, the same every time.

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 5] = b"aeiou";
const SYLLABLES: usize = CONSONANTS.len() * VOWELS.len();

/// The name of symbol `index` of `count`: two syllables, or as many as tell all of them apart.
pub(crate) fn word(index: usize, count: usize) -> String {
    let mut length = 2;
    while SYLLABLES.pow(length) < count {
        length += 1;
    }
    // A multiplier without common factor visits every name once, and neighbours look different.
    let mut rest = index * 2477 % SYLLABLES.pow(length);
    let mut word = String::new();
    for _ in 0..length {
        let syllable = rest % SYLLABLES;
        word.push(char::from(CONSONANTS[syllable % CONSONANTS.len()]));
        word.push(char::from(VOWELS[syllable / CONSONANTS.len()]));
        rest /= SYLLABLES;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct() {
        for count in [1, 128, 6400, 6401, 20_000] {
            let words: HashSet<String> = (0..count).map(|index| word(index, count)).collect();
            assert_eq!(words.len(), count);
        }
        assert_eq!(word(0, 128), "baba");
    }
}
