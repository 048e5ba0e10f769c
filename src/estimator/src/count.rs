//! Counting tokens, pairs of tokens and n-grams within bounded memory.
//!
//! Keys (a pair as 64 bits, an n-gram as where it stands) are sorted on all cores and counted in runs. Where they would not fit into the
//! memory given, the texts are read several times, each time for the keys of one slot; nothing is written to disk.

use rayon::prelude::*;

use crate::Spectrum;

/// Bytes that keys may take, unless said otherwise.
pub(crate) const MEMORY: usize = 1 << 30;

/// The spectrum of the pairs of tokens `distance` apart within a text, or for distance 0 of the tokens; its keys take at most
/// about `memory` bytes.
pub(crate) fn pairs(texts: &[&[u32]], distance: usize, memory: usize) -> Spectrum {
    let total = texts.iter().map(|text| text.len().saturating_sub(distance)).sum();
    count(total, memory, || texts.iter().flat_map(|text| keys(text, distance)), |&key| mixed(key))
}

/// Every token of a text with the one `distance` after it, or for distance 0 alone, as 64 bits.
fn keys(text: &[u32], distance: usize) -> impl Iterator<Item = u64> {
    let firsts = text.iter().map(move |&first| if distance == 0 { 0 } else { u64::from(first) << 32 });
    firsts.zip(text.get(distance..).unwrap_or_default()).map(|(first, &second)| first | u64::from(second))
}

/// The spectrum of all n-grams of `texts`; their places take at most about `memory` bytes.
pub(crate) fn ngrams(texts: &[&[u32]], n: usize, memory: usize) -> Spectrum {
    let total = texts.iter().map(|text| (text.len() + 1).saturating_sub(n)).sum();
    let hash = |ngram: &&[u32]| ngram.iter().fold(0, |hash, &token| mixed(hash ^ u64::from(token)));
    count(total, memory, || texts.iter().flat_map(|text| text.windows(n)), hash)
}

/// The spectrum of `total` keys, in as many passes as the memory asks for.
fn count<K: Ord + Send, I: Iterator<Item = K>>(
    total: usize,
    memory: usize,
    keys: impl Fn() -> I,
    hash: impl Fn(&K) -> u64,
) -> Spectrum {
    let slots = (total * size_of::<K>()).div_ceil(memory.max(1)).max(1);
    let mut spectrum = Spectrum::default();
    // Slots are nearly equal; one that is fuller grows.
    let mut own: Vec<K> = Vec::with_capacity(total / slots + total / slots / 64);
    for slot in 0..slots {
        own.clear();
        own.extend(keys().filter(|key| slots == 1 || hash(key) % slots as u64 == slot as u64));
        own.par_sort_unstable();
        own.chunk_by(|a, b| a == b).for_each(|run| spectrum.add(run.len() as u64));
    }
    spectrum
}

/// A key's bits mixed (the finaliser of SplitMix64), so that slots are equally full.
fn mixed(key: u64) -> u64 {
    let key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

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
        assert_eq!(pairs(&texts, 1, MEMORY), ngrams(&texts, 2, MEMORY));
        for n in [1, 2, 3, 5, 91] {
            let mut counts: HashMap<&[u32], u64> = HashMap::new();
            texts.iter().flat_map(|text| text.windows(n)).for_each(|ngram| *counts.entry(ngram).or_default() += 1);
            let expected: Spectrum = counts.into_values().collect();
            for memory in [0, 1000, MEMORY] {
                assert_eq!(ngrams(&texts, n, memory), expected, "n = {n}, {memory} bytes");
            }
        }
    }
}
