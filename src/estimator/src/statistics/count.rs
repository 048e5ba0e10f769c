//! Counting tokens, pairs of tokens and n-grams within bounded memory, of texts that need not fit into it.
//!
//! Pairs are sorted out by their first token: the second ones of each lie side by side, and are counted in an array as long as the vocabulary.
//! n-grams are sorted as keys. Where all would not fit, the texts are read several times, each time for the pairs or keys of one slot:
//! reading tokens again costs less than writing keys, of several tokens each, and reading those.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Error;
use crate::statistics::spectrum::Spectrum;
use crate::statistics::token_store::TokenTexts;

/// Bytes that counting may take, unless said otherwise.
pub(crate) const MEMORY: usize = 2 << 30;

/// A vocabulary with greater ids is not counted in arrays.
const MOST_IDS: usize = 1 << 24;

/// How often each token stands in the texts, by its id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frequencies(Vec<u64>);

impl Frequencies {
    /// Of all texts; `None` if ids are too great for an array.
    pub(crate) fn of(texts: &impl TokenTexts) -> Result<Option<Self>, Error> {
        let (mut counts, mut fits) = (Vec::new(), true);
        texts.each(&mut |text| {
            let ids = text.iter().max().map_or(0, |&greatest| greatest as usize + 1);
            fits &= ids <= MOST_IDS;
            if fits {
                counts.resize(counts.len().max(ids), 0_u64);
                text.iter().for_each(|&token| counts[token as usize] += 1);
            }
        })?;
        Ok(fits.then_some(Self(counts)))
    }

    pub(crate) fn spectrum(&self) -> Spectrum {
        self.0.iter().copied().collect()
    }

    /// Neighbouring ids whose tokens are `most` at most, unless one id has more.
    fn slots(&self, most: usize) -> Vec<Range<usize>> {
        let (mut slots, mut start, mut tokens) = (Vec::new(), 0, 0);
        for (id, &count) in self.0.iter().enumerate() {
            if count > 0 && tokens > 0 && tokens + count > most as u64 {
                slots.push(start..id);
                (start, tokens) = (id, 0);
            }
            tokens += count;
        }
        slots.push(start..self.0.len());
        slots
    }
}

/// The spectrum of all tokens.
pub(crate) fn tokens(texts: &impl TokenTexts, memory: usize) -> Result<Spectrum, Error> {
    match Frequencies::of(texts)? {
        Some(frequencies) => Ok(frequencies.spectrum()),
        None => ngrams(texts, 1, memory),
    }
}

/// The spectra of the pairs of tokens at each of these distances within a text, in about `memory` bytes.
pub(crate) fn pairs(texts: &impl TokenTexts, distances: &[usize], memory: usize) -> Result<Vec<Spectrum>, Error> {
    let Some(frequencies) = Frequencies::of(texts)? else {
        let keyed = |&distance: &usize| keyed(texts, |text, give| pair_keys(text, distance).for_each(give), memory);
        return distances.iter().map(keyed).collect();
    };
    let threads = rayon::current_num_threads();
    let room = memory / threads / size_of::<u32>();
    // One distance alone is counted by all threads.
    let share = frequencies.0.iter().sum::<u64>() as usize / threads.div_ceil(distances.len().max(1));
    let slots = frequencies.slots(room.min(share.max(1)));
    let jobs: Vec<(usize, &Range<usize>)> =
        distances.iter().flat_map(|&distance| slots.iter().map(move |slot| (distance, slot))).collect();
    let count = |seconds: &mut Vec<u32>, (distance, slot): (usize, &Range<usize>)| {
        pairs_of_slot(texts, &frequencies, slot.clone(), distance, seconds)
    };
    let spectra: Result<Vec<Spectrum>, Error> = jobs.into_par_iter().map_init(Vec::new, count).collect();
    Ok(spectra?.chunks(slots.len()).map(|slots| slots.iter().flat_map(Spectrum::iter).collect()).collect())
}

/// The spectrum of the pairs whose first token is one of `ids`; `seconds` is room that was used before.
fn pairs_of_slot(
    texts: &impl TokenTexts,
    Frequencies(counts): &Frequencies,
    ids: Range<usize>,
    distance: usize,
    seconds: &mut Vec<u32>,
) -> Result<Spectrum, Error> {
    // Where the next second token goes, for each first one.
    let mut total = 0;
    let mut places: Vec<usize> = Vec::with_capacity(ids.len());
    for &count in &counts[ids.clone()] {
        places.push(total);
        total += count as usize;
    }
    seconds.resize(seconds.len().max(total), 0);
    texts.each(&mut |text| {
        for (&first, &second) in text.iter().zip(text.get(distance..).unwrap_or_default()) {
            if let Some(place) = places.get_mut((first as usize).wrapping_sub(ids.start)) {
                seconds[*place] = second;
                *place += 1;
            }
        }
    })?;
    let mut seen = vec![0_u64; counts.len()];
    let mut tally = Tally::default();
    let mut begin = 0;
    for (end, count) in places.into_iter().zip(&counts[ids]) {
        // The last tokens of a text are nobody's first.
        let own = &seconds[begin..end];
        own.iter().for_each(|&second| seen[second as usize] += 1);
        own.iter().for_each(|&second| tally.add(std::mem::take(&mut seen[second as usize])));
        begin += *count as usize;
    }
    Ok(tally.spectrum())
}

/// How many things have each count, the small ones in an array.
struct Tally {
    small: [u64; 256],
    large: Spectrum,
}

impl Default for Tally {
    fn default() -> Self {
        Self { small: [0; 256], large: Spectrum::default() }
    }
}

impl Tally {
    fn add(&mut self, count: u64) {
        match self.small.get_mut(count as usize) {
            Some(things) => *things += 1,
            None => self.large.add(count, 1),
        }
    }

    fn spectrum(self) -> Spectrum {
        // 0 is what was counted already.
        let small = self.small.into_iter().enumerate().skip(1).map(|(count, things)| (count as u64, things));
        small.chain(self.large.iter()).collect()
    }
}

/// The spectrum of all n-grams, in about `memory` bytes.
///
/// Those that do not fit into 128 bits (of a vocabulary of 2^17 tokens, for n above 7) stand by so many of their BLAKE3 hash:
/// that any two of a billion have the same is less likely than 1e-20.
pub(crate) fn ngrams(texts: &impl TokenTexts, n: usize, memory: usize) -> Result<Spectrum, Error> {
    if n == 2 {
        return Ok(pairs(texts, &[1], memory)?.remove(0));
    }
    let mut greatest = 0;
    texts.each(&mut |text| greatest = text.iter().copied().fold(greatest, u32::max))?;
    let bits = (u32::BITS - greatest.leading_zeros()).max(1);
    let fits = n.saturating_mul(bits as usize) <= u128::BITS as usize;
    let packed = move |ngram: &[u32]| ngram.iter().fold(0, |key, &token| key << bits | u128::from(token));
    let hashed = |ngram: &[u32]| {
        let mut hasher = blake3::Hasher::new();
        for token in ngram {
            hasher.update(&token.to_le_bytes());
        }
        let hash = hasher.finalize();
        u128::from_le_bytes(hash.as_bytes().as_chunks().0[0])
    };
    let key = |ngram: &[u32]| if fits { packed(ngram) } else { hashed(ngram) };
    keyed(texts, |text, give| text.windows(n).for_each(|ngram| give(key(ngram))), memory)
}

fn pair_keys(text: &[u32], distance: usize) -> impl Iterator<Item = u128> + '_ {
    let seconds = text.get(distance..).unwrap_or_default();
    text.iter().zip(seconds).map(|(&first, &second)| u128::from(first) << 32 | u128::from(second))
}

/// The spectrum of the keys that texts give, in as many passes as the memory asks for.
fn keyed(
    texts: &impl TokenTexts,
    keys: impl Fn(&[u32], &mut dyn FnMut(u128)),
    memory: usize,
) -> Result<Spectrum, Error> {
    let mut total = 0;
    texts.each(&mut |text| keys(text, &mut |_| total += 1))?;
    let slots = (total * size_of::<u128>()).div_ceil(memory.max(1)).max(1);
    // Slots are nearly equal; one that is fuller grows.
    let mut own = Vec::with_capacity(total / slots + total / slots / 64);
    let mut tally = Tally::default();
    for slot in 0..slots {
        own.clear();
        let mut take = |key| {
            if slots == 1 || mixed(key) % slots as u64 == slot as u64 {
                own.push(key);
            }
        };
        texts.each(&mut |text| keys(text, &mut take))?;
        own.par_sort_unstable();
        own.chunk_by(|a, b| a == b).for_each(|run| tally.add(run.len() as u64));
    }
    Ok(tally.spectrum())
}

/// A key's bits mixed (the finaliser of SplitMix64), so that slots are equally full.
fn mixed(key: u128) -> u64 {
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

    /// Whatever the memory, from memory or file, by small ids or such as no array is made for.
    #[test]
    fn pairs_and_ngrams_are_those_of_a_hash_table() {
        for (ids, offset) in [(12, 0), (12, 9), (400, 0), (12, u32::MAX - 12)] {
            let texts = texts(ids, offset);
            let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let mut store = TokenStore::new(40);
            slices.iter().for_each(|text| store.push(text).unwrap());
            let distances = [1, 7, 200, 600];
            let pair =
                |d: usize| slices.iter().flat_map(move |text| text.iter().zip(text.get(d..).unwrap_or_default()));
            let expected: Vec<Spectrum> = distances.iter().map(|&d| spectrum(pair(d))).collect();
            for memory in [300, 2000, MEMORY] {
                assert_eq!(pairs(&slices, &distances, memory).unwrap(), expected, "{ids} ids, {memory} bytes");
                assert_eq!(pairs(&store, &distances, memory).unwrap(), expected, "{ids} ids, {memory} bytes");
                for n in [1, 2, 3, 5, 40, 91] {
                    let expected = spectrum(slices.iter().flat_map(|text| text.windows(n)));
                    assert_eq!(ngrams(&slices, n, memory).unwrap(), expected, "n = {n}, {memory} bytes");
                    assert_eq!(ngrams(&store, n, memory).unwrap(), expected, "n = {n}, {memory} bytes");
                }
                assert_eq!(tokens(&store, memory).unwrap(), spectrum(texts.iter().flatten()));
            }
        }
    }

    #[test]
    fn slots_hold_all_ids_and_not_too_many_tokens() {
        let frequencies = Frequencies(vec![3, 0, 9, 1, 1, 0, 2, 0]);
        assert_eq!(frequencies.slots(5), [0..2, 2..3, 3..8]);
        assert_eq!(frequencies.slots(0), [0..2, 2..3, 3..4, 4..6, 6..8]);
        assert_eq!(frequencies.slots(16), std::slice::from_ref(&(0..8)));
        assert_eq!(Frequencies(vec![]).slots(1), std::slice::from_ref(&(0..0)));
    }
}
