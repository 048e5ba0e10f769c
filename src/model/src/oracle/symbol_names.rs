//! Readable names for the oracle's symbols: distinct, pronounceable and reproducible.

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 5] = b"aeiou";
const SYLLABLES: usize = CONSONANTS.len() * VOWELS.len();

/// Returns the name of symbol `index` of `count`: two syllables, or more if `count` distinct names need more.
pub(super) fn symbol_name(index: usize, count: usize) -> String {
    let mut length = 2;
    while SYLLABLES.pow(length) < count {
        length += 1;
    }
    // The multiplier shares no factor with the number of possible names, so each name occurs once, and consecutive
    // names look different.
    let mut rest = index * 2477 % SYLLABLES.pow(length);
    let mut name = String::new();
    for _ in 0..length {
        let syllable = rest % SYLLABLES;
        name.push(char::from(CONSONANTS[syllable % CONSONANTS.len()]));
        name.push(char::from(VOWELS[syllable / CONSONANTS.len()]));
        rest /= SYLLABLES;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct() {
        for count in [1, 128, 6400, 6401, 20_000] {
            let names: HashSet<String> = (0..count).map(|index| symbol_name(index, count)).collect();
            assert_eq!(names.len(), count);
        }
        assert_eq!(symbol_name(0, 128), "baba");
    }
}
