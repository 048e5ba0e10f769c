//! The choice of partners. Crossed queries score a document's `y` after the `x` of other documents, which are that
//! document's partners. Partners from other texts come first.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The documents, arranged in a table with one column per text. The order of the texts, and of the documents within
/// each text, is random and determined by a seed.
#[derive(Debug)]
pub(crate) struct PartnerTable {
    /// The documents, row by row.
    order: Vec<usize>,
    /// The number of texts (columns).
    texts: usize,
}

impl PartnerTable {
    /// Arranges `documents` documents. Every `per_text` consecutive documents are one text; `documents` must be a
    /// multiple of `per_text`.
    pub(crate) fn new(documents: usize, per_text: usize, seed: u64) -> Self {
        let mut shuffled: Vec<usize> = (0..documents).collect();
        shuffled.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut columns: Vec<Vec<(usize, usize)>> = vec![Vec::new(); documents / per_text];
        for (place, document) in shuffled.into_iter().enumerate() {
            columns[document / per_text].push((place, document));
        }
        // Sort texts by the shuffled position of their first document.
        columns.sort_unstable();
        let row = |at: usize| columns.iter().map(move |column| column[at].1);
        Self { order: (0..per_text).flat_map(row).collect(), texts: columns.len() }
    }

    /// Returns all documents, row by row, which is the order of their queries.
    pub(crate) fn order(&self) -> &[usize] {
        &self.order
    }

    /// Returns the document whose partner `k`, counted from 0, is at position `place` in the order. A document's
    /// partners from other texts come before those from its own text.
    pub(crate) fn document_with_partner(&self, place: usize, k: usize) -> usize {
        let (others, rows) = (self.texts - 1, self.order.len() / self.texts);
        let (row, column) = (place / self.texts, place % self.texts);
        let (up, is_other) = if k < rows * others { (k / others, true) } else { (1 + k - rows * others, false) };
        let row = (row + rows - up) % rows;
        // The shift depends on the row, so that the documents of one text have partners in different texts.
        let left = if is_other { 1 + (row + k) % others } else { 0 };
        self.order[row * self.texts + (column + self.texts - left) % self.texts]
    }

    /// Returns partner `k`, counted from 0, of each document: a permutation.
    pub(crate) fn partners(&self, k: usize) -> Vec<usize> {
        let mut partners = vec![0; self.order.len()];
        for (place, &x) in self.order.iter().enumerate() {
            partners[self.document_with_partner(place, k)] = x;
        }
        partners
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn documents_of_other_texts_come_before_those_of_the_same_text(
            texts in 1_usize..8, per_text in 1_usize..8, seed: u64,
        ) {
            let documents = texts * per_text;
            let table = PartnerTable::new(documents, per_text, seed);
            let partners: Vec<Vec<usize>> = (0..documents - 1).map(|k| table.partners(k)).collect();
            for document in 0..documents {
                let own: Vec<usize> = partners.iter().map(|partners| partners[document]).collect();
                prop_assert_eq!(own.iter().chain([&document]).collect::<HashSet<_>>().len(), documents);
                let (other, same) = own.split_at(documents - per_text);
                prop_assert!(other.iter().all(|partner| partner / per_text != document / per_text));
                prop_assert!(same.iter().all(|partner| partner / per_text == document / per_text));
            }
            for partners in partners {
                prop_assert_eq!(partners.iter().collect::<HashSet<_>>().len(), documents);
            }
        }

        /// If every text has one document, or all documents are of one text, partners are neighbors in the shuffled
        /// order.
        #[test]
        fn partners_are_neighbors_if_texts_do_not_matter(count in 2_usize..40, one: bool, seed: u64) {
            let table = PartnerTable::new(count, if one { count } else { 1 }, seed);
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(table.order(), &order[..]);
            for k in 0..count - 1 {
                let partners = table.partners(k);
                prop_assert!((0..count).all(|place| partners[order[place]] == order[(place + k + 1) % count]));
            }
        }
    }

    #[test]
    fn documents_of_a_text_have_partners_in_all_other_texts() {
        let partners = PartnerTable::new(12, 3, 5).partners(0);
        for documents in partners.chunks(3) {
            assert_eq!(documents.iter().map(|partner| partner / 3).collect::<HashSet<_>>().len(), 3);
        }
    }
}
