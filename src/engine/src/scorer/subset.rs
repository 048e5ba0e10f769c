//! A set of tokens whose total probability a query requests.

/// Bits per word of the bitmap.
const BITS: u32 = u32::BITS;

/// A set of token ids, as a bitmap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset(Vec<u32>);

impl Subset {
    /// Creates a set of the given ids, which may repeat.
    pub fn new(ids: &[u32]) -> Self {
        let mut words = vec![0; ids.iter().max().map_or(0, |&largest| (largest / BITS) as usize + 1)];
        for &id in ids {
            words[(id / BITS) as usize] |= 1 << (id % BITS);
        }
        Self(words)
    }

    /// Returns `true` if the set has no tokens.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the ids, in increasing order.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.0).flat_map(|(index, &word)| set_bits(word).map(move |bit| index * BITS + bit))
    }

    /// Returns the largest id; `None` if the set is empty.
    pub(crate) fn largest(&self) -> Option<u32> {
        let last = self.0.last()?;
        Some(self.0.len() as u32 * BITS - 1 - last.leading_zeros())
    }

    /// Returns a word of the bitmap. Bit `i` is 1 if the set contains the id `32 * index + i`; bit 0 is the lowest.
    pub(crate) fn word(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(0)
    }
}

/// Returns the indices of the bits that are set in a word, in increasing order.
pub(crate) fn set_bits(word: u32) -> impl Iterator<Item = u32> + Clone {
    let without_lowest = |&word: &u32| Some(word & (word - 1)).filter(|&rest| rest != 0);
    std::iter::successors(Some(word).filter(|&word| word != 0), without_lowest).map(u32::trailing_zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_exactly_the_given_ids() {
        let set = Subset::new(&[70, 3, 31, 32, 3, 95]);
        assert_eq!(set.ids().collect::<Vec<_>>(), [3, 31, 32, 70, 95]);
        assert_eq!((set.word(0), set.word(1), set.word(2), set.word(3)), (1 << 3 | 1 << 31, 1, 1 << 6 | 1 << 31, 0));
        assert_eq!((set.largest(), Subset::new(&[0]).largest(), Subset::new(&[]).largest()), (Some(95), Some(0), None));
        assert!(Subset::new(&[]).is_empty() && !set.is_empty());
    }
}
