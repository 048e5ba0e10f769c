//! Random permutations of the tokens of texts that need not fit in memory.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::Error;
use crate::statistics::token_store::{TokenStore, TokenTexts};

/// Default memory for the tokens that are permuted at once, and for those of the permuted texts, in bytes each.
pub(crate) const SHUFFLE_MEMORY_BYTES: usize = 512 << 20;

/// Returns texts of the same lengths with the same tokens in a random order, each permutation of all tokens with the
/// same probability. Takes about `2 * memory` bytes.
///
/// Each token goes to a bucket at random, and each bucket, which fits in memory, is permuted; the buckets follow each
/// other (Rao, *Generation of Random Permutation of Given Number of Elements Using Random Sampling Numbers*, 1961).
/// A bucket is collected in a pass over the texts, in which the generator assigns the same buckets again. The order
/// depends on the seed and on `memory`.
///
/// # Errors
/// [`Error::Spill`] if the texts cannot be read, or the permuted texts cannot be saved.
pub fn shuffle_tokens(texts: &impl TokenTexts, seed: u64, memory: usize) -> Result<TokenStore, Error> {
    let mut lengths = Vec::new();
    texts.for_each(&mut |text| lengths.push(text.len()))?;
    let total: usize = lengths.iter().sum();
    let max_tokens = (memory / size_of::<u32>()).max(1);
    let buckets = total.div_ceil(max_tokens).max(1);
    let mut order = ChaCha8Rng::seed_from_u64(seed);
    order.set_stream(1);
    let mut bucket = Vec::with_capacity(total / buckets + total / buckets / 64);
    let mut output =
        Output { lengths: lengths.into_iter(), length: 0, text: Vec::new(), store: TokenStore::new(memory) };
    output.start_text()?;
    for index in 0..buckets {
        let mut assignment = ChaCha8Rng::seed_from_u64(seed);
        bucket.clear();
        texts.for_each(&mut |text| {
            let chosen = text.iter().filter(|_| buckets == 1 || assignment.random_range(0..buckets) == index);
            bucket.extend(chosen);
        })?;
        bucket.shuffle(&mut order);
        output.push(&bucket)?;
    }
    Ok(output.store)
}

/// The permuted texts: tokens arrive in pieces, and become texts of the given lengths.
struct Output {
    /// The lengths of the texts after the current one.
    lengths: std::vec::IntoIter<usize>,
    /// The length of the current text.
    length: usize,
    /// The tokens of the current text so far.
    text: Vec<u32>,
    store: TokenStore,
}

impl Output {
    /// Moves on to the next text that has tokens.
    fn start_text(&mut self) -> Result<(), Error> {
        self.text.clear();
        self.length = 0;
        for length in self.lengths.by_ref() {
            if length > 0 {
                self.length = length;
                return Ok(());
            }
            self.store.push(&[])?;
        }
        Ok(())
    }

    fn push(&mut self, mut tokens: &[u32]) -> Result<(), Error> {
        while !tokens.is_empty() {
            let (now, rest) = tokens.split_at(tokens.len().min(self.length - self.text.len()));
            self.text.extend_from_slice(now);
            tokens = rest;
            if self.text.len() == self.length {
                self.store.push(&self.text)?;
                self.start_text()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(store: &TokenStore) -> Vec<Vec<u32>> {
        let mut found = Vec::new();
        store.for_each(&mut |text| found.push(text.to_vec())).unwrap();
        found
    }

    proptest! {
        #[test]
        fn lengths_and_tokens_are_kept(
            lengths in prop::collection::vec(0_usize..30, 0..20), memory in 1_usize..2000, seed: u64,
        ) {
            let total = lengths.iter().sum::<usize>() as u32;
            let mut next = 0..total;
            let texts: Vec<Vec<u32>> = lengths.iter().map(|&length| next.by_ref().take(length).collect()).collect();
            let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let found = all(&shuffle_tokens(&slices, seed, memory).unwrap());
            prop_assert!(found.iter().map(Vec::len).eq(lengths.iter().copied()));
            let mut tokens = found.concat();
            tokens.sort_unstable();
            prop_assert!(tokens.into_iter().eq(0..total));
            prop_assert_eq!(found, all(&shuffle_tokens(&slices, seed, memory).unwrap()));
        }
    }

    /// All 24 orders of four tokens are equally frequent, in one bucket and in several.
    #[test]
    fn all_permutations_have_the_same_probability() {
        for memory in [16, 8, 4] {
            let mut times = std::collections::HashMap::new();
            for seed in 0..4800 {
                *times.entry(all(&shuffle_tokens(&vec![&[0, 1][..], &[2, 3]], seed, memory).unwrap())).or_insert(0) +=
                    1;
            }
            // The expected count is 200, with a standard deviation of 13.8. Chi-squared with 23 degrees of freedom is
            // above 49.7 with probability 0.001.
            let chi: f64 = times.values().map(|&n| (f64::from(n) - 200.0).powi(2) / 200.0).sum();
            assert!(times.len() == 24 && chi < 49.7, "{memory} bytes: {chi} {times:?}");
        }
    }
}
