//! The choice of unrelated documents that are scored together, for the test of additivity.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The stream of random numbers for these pairs. The choice of partners and the bootstrap use others.
const STREAM: u64 = 3;

/// Returns pairs of documents from different texts. No document is in two pairs, and the documents of a text are paired
/// with those of one other text only, so that the pairs of different texts are independent. `texts` has the text of each
/// document; the documents of a text are consecutive. The pairs of a text are consecutive.
pub(crate) fn joint_pairs(texts: &[usize], seed: u64) -> Vec<[usize; 2]> {
    let mut documents: Vec<Vec<usize>> = vec![Vec::new(); texts.last().map_or(0, |last| last + 1)];
    for (document, &text) in texts.iter().enumerate() {
        documents[text].push(document);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(STREAM);
    documents.shuffle(&mut rng);
    let mut pairs = Vec::new();
    for two in documents.chunks_exact(2) {
        pairs.extend(two[0].iter().zip(&two[1]).map(|(&first, &second)| [first, second]));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pairs_of_different_texts_are_independent(sizes in prop::collection::vec(1_usize..6, 1..12), seed: u64) {
            let texts: Vec<usize> = sizes.iter().enumerate().flat_map(|(text, &size)| vec![text; size]).collect();
            let pairs = joint_pairs(&texts, seed);
            let mut documents: Vec<usize> = pairs.iter().flatten().copied().collect();
            documents.sort_unstable();
            documents.dedup();
            prop_assert_eq!(documents.len(), 2 * pairs.len());
            let mut partner_of: HashMap<usize, usize> = HashMap::new();
            for [a, b] in pairs.iter().map(|pair| pair.map(|document| texts[document])) {
                prop_assert!(a != b);
                prop_assert_eq!((*partner_of.entry(a).or_insert(b), *partner_of.entry(b).or_insert(a)), (b, a));
            }
            prop_assert_eq!(partner_of.len(), sizes.len() / 2 * 2);
            prop_assert!(pairs.chunk_by(|one, next| texts[one[0]] == texts[next[0]]).count() == sizes.len() / 2);
        }
    }
}
