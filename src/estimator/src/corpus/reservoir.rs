//! A random sample of texts that arrive one by one.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::corpus::batches::SelectedText;

/// A sample of fixed size, in which each offered text has the same probability, by Algorithm R (Vitter, *Random Sampling
/// with a Reservoir*, 1985).
pub(crate) struct Reservoir {
    size: usize,
    rng: ChaCha8Rng,
    /// The number of texts offered so far.
    offered: usize,
    /// The sampled texts, each with its index among those offered.
    texts: Vec<(usize, SelectedText)>,
}

impl Reservoir {
    /// Creates an empty sample of up to `size` texts. The seed determines the indices of the sampled texts.
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        Self { size, rng: ChaCha8Rng::seed_from_u64(seed), offered: 0, texts: Vec::new() }
    }

    /// Offers the next text; it may replace one that was sampled before.
    pub(crate) fn offer(&mut self, text: &SelectedText) {
        let index = self.offered;
        self.offered += 1;
        if index < self.size {
            self.texts.push((index, text.clone()));
        } else if let Some(slot) = self.texts.get_mut(self.rng.random_range(0..=index)) {
            *slot = (index, text.clone());
        }
    }

    /// Returns the sampled texts in the order in which they were offered.
    pub(crate) fn into_texts(mut self) -> Vec<SelectedText> {
        self.texts.sort_unstable_by_key(|&(index, _)| index);
        self.texts.into_iter().map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::places::TextOrigin;

    fn text(content: &str) -> SelectedText {
        let origin = TextOrigin { file: "a".into(), row: None, byte: 0, character: 0 };
        SelectedText { content: content.to_owned(), origin }
    }

    fn sample(seed: u64) -> Vec<usize> {
        let mut reservoir = Reservoir::new(5, seed);
        (0..20).for_each(|index: usize| reservoir.offer(&text(&index.to_string())));
        reservoir.into_texts().iter().map(|text| text.content.parse().unwrap()).collect()
    }

    #[test]
    fn a_sample_is_seeded_ordered_and_fair() {
        assert_eq!(sample(3), sample(3));
        let mut times = [0; 20];
        for seed in 0..2000 {
            let found = sample(seed);
            assert!(found.len() == 5 && found.is_sorted());
            found.into_iter().for_each(|text| times[text] += 1);
        }
        // The expected count is 500, with a standard deviation of 19.4.
        assert!(times.iter().all(|time| (420..580).contains(time)), "{times:?}");
    }

    /// Saved answers belong to their documents, so a seed must go on choosing the same texts.
    #[test]
    fn a_seed_keeps_its_sample() {
        assert_eq!(sample(3), [2, 8, 12, 15, 18]);
    }

    #[test]
    fn a_small_corpus_is_sampled_whole() {
        let mut reservoir = Reservoir::new(5, 1);
        ["a", "b"].into_iter().for_each(|content| reservoir.offer(&text(content)));
        assert_eq!(reservoir.into_texts(), [text("a"), text("b")]);
    }
}
