//! Counting tokens, pairs of tokens and n-grams within bounded memory.
//!
//! Pairs become 64-bit keys, which are sorted and counted in runs. Where they would not fit into the memory given, the texts are
//! read several times, each time for the keys of one slot; nothing is written to disk.

use std::collections::HashMap;

use crate::Spectrum;

/// Bytes that keys may take, unless said otherwise.
pub(crate) const MEMORY: usize = 1 << 30;

/// The spectrum of the pairs of tokens `distance` apart within a text, or for distance 0 of the tokens; its keys take at most
/// about `memory` bytes.
pub(crate) fn pairs(texts: &[&[u32]], distance: usize, memory: usize) -> Spectrum {
    let total: usize = texts.iter().map(|text| text.len().saturating_sub(distance)).sum();
    let slots = (total * size_of::<u64>()).div_ceil(memory.max(1)).max(1);
    let mut spectrum = Spectrum::default();
    // Slots are nearly equal; one that is fuller grows.
    let mut keys: Vec<u64> = Vec::with_capacity(total / slots + total / slots / 64);
    for slot in 0..slots {
        keys.clear();
        for text in texts {
            let pairs = text.iter().zip(text.get(distance..).unwrap_or_default());
            let key = |(&first, &second): (&u32, &u32)| if distance == 0 { first.into() } else { key(first, second) };
            keys.extend(pairs.map(key).filter(|key| slots == 1 || mixed(*key) % slots as u64 == slot as u64));
        }
        keys.sort_unstable();
        keys.chunk_by(|a, b| a == b).for_each(|run| spectrum.add(run.len() as u64));
    }
    spectrum
}

fn key(first: u32, second: u32) -> u64 {
    u64::from(first) << 32 | u64::from(second)
}

/// A key's bits mixed (the finaliser of SplitMix64), so that slots are equally full.
fn mixed(key: u64) -> u64 {
    let key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

/// The spectrum of all n-grams of `texts`.
pub(crate) fn ngrams(texts: &[&[u32]], n: usize) -> Spectrum {
    let mut counts: HashMap<&[u32], u64> = HashMap::new();
    for ngram in texts.iter().flat_map(|text| text.windows(n)) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn pairs_are_counted_the_same_in_any_memory() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut text = |length| -> Vec<u32> { (0..length).map(|_| rng.random_range(0..12)).collect() };
        let texts = [text(500), text(3), text(0), text(90)];
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        for distance in [0, 1, 7] {
            let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
            for text in &texts {
                for i in distance..text.len() {
                    *counts.entry((if distance == 0 { 0 } else { text[i - distance] }, text[i])).or_default() += 1;
                }
            }
            let expected: Spectrum = counts.into_values().collect();
            for memory in [0, 100, 1000, MEMORY] {
                assert_eq!(pairs(&texts, distance, memory), expected, "distance {distance}, {memory} bytes");
            }
        }
        assert_eq!(pairs(&texts, 1, MEMORY), ngrams(&texts, 2));
    }
}
