//! Counts of tokens, pairs of tokens and n-grams, in bounded memory, for texts that need not fit in memory.
//!
//! Pairs are grouped by their first token; the second tokens of a group are counted in an array as long as the
//! vocabulary. n-grams are encoded as keys and sorted. Pairs or keys that do not fit in memory are divided into slots,
//! and each slot is counted in a separate pass over the texts: reading the tokens again costs less than writing and
//! reading keys, which hold several tokens each.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Error;
use crate::statistics::spectrum::{Spectrum, SpectrumBuilder};
use crate::statistics::token_store::TokenTexts;

/// Default memory for counting, in bytes.
pub(crate) const COUNT_MEMORY_BYTES: usize = 2 << 30;

/// Maximum number of token ids in a vocabulary that is counted in arrays.
const MAX_IDS: usize = 1 << 24;

/// The number of occurrences of each token in the texts, by id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frequencies(Vec<u64>);

impl Frequencies {
    /// Counts the tokens of all texts; `None` if ids are too large for an array.
    pub(crate) fn of(texts: &impl TokenTexts) -> Result<Option<Self>, Error> {
        let (mut counts, mut fits) = (Vec::new(), true);
        texts.for_each(&mut |text| {
            let ids = text.iter().max().map_or(0, |&greatest| greatest as usize + 1);
            fits &= ids <= MAX_IDS;
            if fits {
                counts.resize(counts.len().max(ids), 0_u64);
                for &token in text {
                    counts[token as usize] += 1;
                }
            }
        })?;
        Ok(fits.then_some(Self(counts)))
    }

    pub(crate) fn spectrum(&self) -> Spectrum {
        self.0.iter().copied().collect()
    }

    /// Divides the ids into ranges with at most `max_tokens` occurrences each, unless a single id has more.
    fn slots(&self, max_tokens: usize) -> Vec<Range<usize>> {
        let (mut slots, mut start, mut tokens) = (Vec::new(), 0, 0);
        for (id, &count) in self.0.iter().enumerate() {
            if count > 0 && tokens > 0 && tokens + count > max_tokens as u64 {
                slots.push(start..id);
                (start, tokens) = (id, 0);
            }
            tokens += count;
        }
        slots.push(start..self.0.len());
        slots
    }
}

/// Counts all tokens.
pub(crate) fn count_tokens(texts: &impl TokenTexts, memory: usize) -> Result<Spectrum, Error> {
    match Frequencies::of(texts)? {
        Some(frequencies) => Ok(frequencies.spectrum()),
        None => count_ngrams(texts, 1, memory),
    }
}

/// Counts the pairs of tokens at each distance within a text, in about `memory` bytes; returns one spectrum per
/// distance.
pub(crate) fn count_pairs(texts: &impl TokenTexts, distances: &[usize], memory: usize) -> Result<Vec<Spectrum>, Error> {
    let Some(frequencies) = Frequencies::of(texts)? else {
        return distances.iter().map(|&distance| pairs_by_key(texts, distance, memory)).collect();
    };
    let threads = rayon::current_num_threads();
    let tokens_in_memory = memory / threads / size_of::<u32>();
    // Even a single distance is divided among all threads.
    let share = frequencies.0.iter().sum::<u64>() as usize / threads.div_ceil(distances.len().max(1));
    let slots = frequencies.slots(tokens_in_memory.min(share.max(1)));
    let mut jobs: Vec<(usize, Range<usize>)> = Vec::with_capacity(distances.len() * slots.len());
    for &distance in distances {
        jobs.extend(slots.iter().map(|slot| (distance, slot.clone())));
    }
    let count = |buffer: &mut Vec<u32>, (distance, slot)| pairs_of_slot(texts, &frequencies, slot, distance, buffer);
    let spectra: Result<Vec<Spectrum>, Error> = jobs.into_par_iter().map_init(Vec::new, count).collect();
    Ok(spectra?.chunks(slots.len()).map(|slots| slots.iter().flat_map(Spectrum::iter).collect()).collect())
}

/// Counts the pairs whose first token is in `ids`; `seconds` is a buffer for their second tokens, which later calls
/// reuse.
fn pairs_of_slot(
    texts: &impl TokenTexts,
    Frequencies(counts): &Frequencies,
    ids: Range<usize>,
    distance: usize,
    seconds: &mut Vec<u32>,
) -> Result<Spectrum, Error> {
    // For each first token, the index in `seconds` for its next second token.
    let mut total = 0;
    let mut next: Vec<usize> = Vec::with_capacity(ids.len());
    for &count in &counts[ids.clone()] {
        next.push(total);
        total += count as usize;
    }
    seconds.resize(seconds.len().max(total), 0);
    texts.for_each(&mut |text| {
        for (&first, &second) in text.iter().zip(text.get(distance..).unwrap_or_default()) {
            if let Some(place) = next.get_mut((first as usize).wrapping_sub(ids.start)) {
                seconds[*place] = second;
                *place += 1;
            }
        }
    })?;
    let mut seen = vec![0_u64; counts.len()];
    let mut spectrum = SpectrumBuilder::default();
    let mut begin = 0;
    for (end, count) in next.into_iter().zip(&counts[ids]) {
        // The group can have fewer than `count` tokens: the last tokens of a text begin no pair.
        let group = &seconds[begin..end];
        for &second in group {
            seen[second as usize] += 1;
        }
        for &second in group {
            spectrum.add(std::mem::take(&mut seen[second as usize]));
        }
        begin += *count as usize;
    }
    Ok(spectrum.build())
}

/// Counts all n-grams, in about `memory` bytes.
///
/// n-grams that do not fit in 128 bits (with a vocabulary of 2^17 tokens, for n above 7) are represented by 128 bits of
/// their BLAKE3 hash: among a billion n-grams, the probability that any two have the same hash is below 1e-20.
pub(crate) fn count_ngrams(texts: &impl TokenTexts, n: usize, memory: usize) -> Result<Spectrum, Error> {
    if n == 2 {
        return Ok(count_pairs(texts, &[1], memory)?.remove(0));
    }
    let mut greatest = 0;
    texts.for_each(&mut |text| greatest = text.iter().copied().fold(greatest, u32::max))?;
    let bits = (u32::BITS - greatest.leading_zeros()).max(1);
    let fits = n.saturating_mul(bits as usize) <= u128::BITS as usize;
    let key = |ngram: &[u32]| if fits { packed(ngram, bits) } else { hashed(ngram) };
    let keys = |text: &[u32], visit: &mut dyn FnMut(u128)| {
        for ngram in text.windows(n) {
            visit(key(ngram));
        }
    };
    count_keys(texts, keys, memory)
}

/// Packs the ids of an n-gram into a key, each in `bits` bits.
fn packed(ngram: &[u32], bits: u32) -> u128 {
    ngram.iter().fold(0, |key, &token| key << bits | u128::from(token))
}

/// Returns 128 bits of an n-gram's BLAKE3 hash.
fn hashed(ngram: &[u32]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for token in ngram {
        hasher.update(&token.to_le_bytes());
    }
    let hash = hasher.finalize();
    u128::from_le_bytes(hash.as_bytes().as_chunks().0[0])
}

/// Counts the pairs at one distance as keys; ids may be arbitrarily large.
fn pairs_by_key(texts: &impl TokenTexts, distance: usize, memory: usize) -> Result<Spectrum, Error> {
    let keys = |text: &[u32], visit: &mut dyn FnMut(u128)| {
        let seconds = text.get(distance..).unwrap_or_default();
        for (&first, &second) in text.iter().zip(seconds) {
            visit(u128::from(first) << 32 | u128::from(second));
        }
    };
    count_keys(texts, keys, memory)
}

/// Counts the keys of all texts, in as many passes as `memory` bytes require.
fn count_keys(
    texts: &impl TokenTexts,
    keys: impl Fn(&[u32], &mut dyn FnMut(u128)),
    memory: usize,
) -> Result<Spectrum, Error> {
    let mut total = 0;
    texts.for_each(&mut |text| keys(text, &mut |_| total += 1))?;
    let slots = (total * size_of::<u128>()).div_ceil(memory.max(1)).max(1);
    // Slots have nearly equal sizes; if one is larger, the buffer grows.
    let mut sorted = Vec::with_capacity(total / slots + total / slots / 64);
    let mut spectrum = SpectrumBuilder::default();
    for slot in 0..slots {
        sorted.clear();
        let mut take = |key| {
            if slots == 1 || mix(key) % slots as u64 == slot as u64 {
                sorted.push(key);
            }
        };
        texts.for_each(&mut |text| keys(text, &mut take))?;
        sorted.par_sort_unstable();
        for equal in sorted.chunk_by(|a, b| a == b) {
            spectrum.add(equal.len() as u64);
        }
    }
    Ok(spectrum.build())
}

/// Mixes a key's bits with the finalizer of SplitMix64, so that the slots have nearly equal sizes.
fn mix(key: u128) -> u64 {
    let key = (key ^ key >> 64) as u64;
    let key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::Hash;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::statistics::token_store::TokenStore;

    fn texts(ids: u32, offset: u32) -> Vec<Vec<u32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut text = |length| -> Vec<u32> { (0..length).map(|_| offset + rng.random_range(0..ids)).collect() };
        vec![text(500), text(3), text(0), text(90)]
    }

    fn spectrum<K: Hash + Eq>(things: impl Iterator<Item = K>) -> Spectrum {
        let mut counts: HashMap<K, u64> = HashMap::new();
        things.for_each(|thing| *counts.entry(thing).or_default() += 1);
        counts.into_values().collect()
    }

    /// Covers small and large memory, texts in memory and in a file, and ids that are small or too large for an array.
    #[test]
    fn counts_of_pairs_and_ngrams_match_a_hash_table() {
        for (ids, offset) in [(12, 0), (12, 9), (400, 0), (12, u32::MAX - 12)] {
            let texts = texts(ids, offset);
            let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let mut store = TokenStore::new(40);
            slices.iter().for_each(|text| store.push(text).unwrap());
            let distances = [1, 7, 200, 600];
            let pair =
                |d: usize| slices.iter().flat_map(move |text| text.iter().zip(text.get(d..).unwrap_or_default()));
            let expected: Vec<Spectrum> = distances.iter().map(|&d| spectrum(pair(d))).collect();
            for memory in [300, 2000, COUNT_MEMORY_BYTES] {
                assert_eq!(count_pairs(&slices, &distances, memory).unwrap(), expected, "{ids} ids, {memory} bytes");
                assert_eq!(count_pairs(&store, &distances, memory).unwrap(), expected, "{ids} ids, {memory} bytes");
                for n in [1, 2, 3, 5, 40, 91] {
                    let expected = spectrum(slices.iter().flat_map(|text| text.windows(n)));
                    assert_eq!(count_ngrams(&slices, n, memory).unwrap(), expected, "n = {n}, {memory} bytes");
                    assert_eq!(count_ngrams(&store, n, memory).unwrap(), expected, "n = {n}, {memory} bytes");
                }
                assert_eq!(count_tokens(&store, memory).unwrap(), spectrum(texts.iter().flatten()));
            }
        }
    }

    #[test]
    fn slots_hold_all_ids_and_respect_the_token_limit() {
        let frequencies = Frequencies(vec![3, 0, 9, 1, 1, 0, 2, 0]);
        assert_eq!(frequencies.slots(5), [0..2, 2..3, 3..8]);
        assert_eq!(frequencies.slots(0), [0..2, 2..3, 3..4, 4..6, 6..8]);
        assert_eq!(frequencies.slots(16), std::slice::from_ref(&(0..8)));
        assert_eq!(Frequencies(vec![]).slots(1), std::slice::from_ref(&(0..0)));
    }
}
