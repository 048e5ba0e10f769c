//! The choice of partners. Crossed queries score a document's `y` after the `x` of other documents, which are that
//! document's partners. Partners from other texts come first.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The documents on circles, one for each row. On every circle, the documents of a text are neighbors. A document's
/// partner is at a certain distance on its circle: far enough that it is from another text.
///
/// Row `r` has each document whose place, in an order by text, is `r` modulo the number of rows. The order of the texts,
/// and of the documents within each text, is random and determined by a seed. With more rows, the partners of a text's
/// documents are from more texts, but a document has fewer partners on its circle.
#[derive(Debug)]
pub(crate) struct PartnerTable {
    /// The documents, row by row.
    order: Vec<usize>,
    /// The first position of each row in `order`, and the length of `order`.
    starts: Vec<usize>,
    /// The smallest distance at which all partners on a circle are from other texts.
    nearest: usize,
    /// `true` if each circle has one document of each text, so that a partner may be on another circle.
    is_aligned: bool,
}

impl PartnerTable {
    /// Arranges documents from these texts so that each has `partners` partners from other texts, if possible. The
    /// documents of a text are consecutive.
    pub(crate) fn new(texts: &[usize], partners: usize, seed: u64) -> Self {
        let by_text = order_by_text(texts, seed);
        let sizes: Vec<usize> = texts.chunk_by(|one, next| one == next).map(<[usize]>::len).collect();
        // All documents of a single text are related, so their texts do not matter.
        let largest = sizes.iter().copied().max().filter(|_| sizes.len() > 1).unwrap_or(1);
        let is_uniform = sizes.len() > 1 && sizes.iter().all(|&size| size == largest);
        let arrange = |rows: usize| {
            let mut table = Self {
                order: Vec::with_capacity(texts.len()),
                starts: vec![0],
                nearest: largest.div_ceil(rows),
                is_aligned: is_uniform && rows == largest,
            };
            for row in 0..rows {
                table.order.extend(by_text.iter().skip(row).step_by(rows));
                table.starts.push(table.order.len());
            }
            table
        };
        let most = (1..=largest).rev().map(arrange).find(|table| table.distant_partners() >= partners);
        most.unwrap_or_else(|| arrange(1))
    }

    /// Returns all documents, row by row, which is the order of their queries.
    pub(crate) fn order(&self) -> &[usize] {
        &self.order
    }

    /// Returns the number of rows.
    fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the number of distances at which all partners on a circle of `length` documents are from other texts.
    fn distances(&self, length: usize) -> usize {
        (length + 1).saturating_sub(2 * self.nearest)
    }

    /// Returns a number of partners that each document has in other texts.
    fn distant_partners(&self) -> usize {
        let shortest = self.order.len() / self.rows();
        self.distances(shortest) * if self.is_aligned { self.rows() } else { 1 }
    }

    /// Returns the document whose partner `k`, counted from 0, is at position `place` in the order. A document's
    /// partners from other texts come before those from its own text.
    pub(crate) fn document_with_partner(&self, place: usize, k: usize) -> usize {
        let row = self.starts.partition_point(|&start| start <= place) - 1;
        let length = self.starts[row + 1] - self.starts[row];
        let column = place - self.starts[row];
        let (row, distance) = if k < self.distant_partners() {
            let distances = self.distances(length);
            let up = if self.is_aligned { k / distances } else { 0 };
            let row = (row + self.rows() - up) % self.rows();
            // The distance depends on the row, so that the documents of one text have partners in different texts.
            (row, self.nearest + (row + k) % distances)
        } else {
            (row, from_the_middle(k, length))
        };
        self.order[self.starts[row] + (column + length - distance) % length]
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

/// Returns the documents in random order, but those of a text together. Texts are in the order of their first documents.
fn order_by_text(texts: &[usize], seed: u64) -> Vec<usize> {
    let mut shuffled: Vec<usize> = (0..texts.len()).collect();
    shuffled.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut by_text: Vec<Vec<(usize, usize)>> = vec![Vec::new(); texts.last().map_or(0, |last| last + 1)];
    for (place, document) in shuffled.into_iter().enumerate() {
        by_text[texts[document]].push((place, document));
    }
    by_text.sort_unstable();
    by_text.into_iter().flatten().map(|(_, document)| document).collect()
}

/// Returns the distance number `k` on a circle of `length` documents, in the order of their differences from half of
/// the circle. A text's documents are neighbors, so the first distances have the most partners from other texts.
fn from_the_middle(k: usize, length: usize) -> usize {
    let (middle, step) = (length / 2, k.div_ceil(2));
    if (k + length).is_multiple_of(2) { middle + step } else { middle - step }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Returns all partners of each document, in order, of a table for `partners` partners.
    fn all_partners(texts: &[usize], partners: usize, seed: u64) -> Vec<Vec<usize>> {
        let table = PartnerTable::new(texts, partners, seed);
        let mut of_documents = vec![Vec::new(); texts.len()];
        for k in 0..partners {
            let partners = table.partners(k);
            assert_eq!(partners.iter().collect::<HashSet<_>>().len(), texts.len(), "{k} of {texts:?}");
            of_documents.iter_mut().zip(partners).for_each(|(all, partner)| all.push(partner));
        }
        of_documents
    }

    fn texts_of_sizes(sizes: &[usize]) -> Vec<usize> {
        sizes.iter().enumerate().flat_map(|(text, &size)| vec![text; size]).collect()
    }

    proptest! {
        #[test]
        fn partners_differ_and_those_of_other_texts_come_first(
            sizes in prop::collection::vec(1_usize..8, 1..8), part in 0.0..1.0, seed: u64,
        ) {
            let texts = texts_of_sizes(&sizes);
            prop_assume!(texts.len() > 1);
            let largest = if sizes.len() == 1 { 1 } else { sizes.iter().copied().max().unwrap() };
            let partners = 1 + (part * (texts.len() - 2) as f64) as usize;
            for (document, own) in all_partners(&texts, partners, seed).into_iter().enumerate() {
                prop_assert_eq!(own.iter().chain([&document]).collect::<HashSet<_>>().len(), partners + 1);
                let are_other = own.iter().filter(|&&partner| texts[partner] != texts[document] || sizes.len() == 1);
                let sure = (texts.len() + 1).saturating_sub(2 * largest).min(partners);
                prop_assert!(are_other.count() >= sure, "{own:?} of {document}");
            }
        }

        /// With equal sizes, as many partners as possible are from other texts.
        #[test]
        fn texts_of_equal_size_have_all_other_documents_as_distant_partners(
            texts in 2_usize..8, size in 1_usize..8, seed: u64,
        ) {
            let texts = texts_of_sizes(&vec![size; texts]);
            for (document, own) in all_partners(&texts, texts.len() - size, seed).into_iter().enumerate() {
                prop_assert!(own.iter().all(|&partner| texts[partner] != texts[document]));
            }
        }

        /// If every text has one document, or all documents are of one text, partners are neighbors in the shuffled
        /// order.
        #[test]
        fn partners_are_neighbors_if_texts_do_not_matter(count in 2_usize..40, one: bool, seed: u64) {
            let texts: Vec<usize> = (0..count).map(|document| if one { 0 } else { document }).collect();
            let table = PartnerTable::new(&texts, count - 1, seed);
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
    fn documents_of_a_text_have_partners_in_several_other_texts() {
        for (sizes, least) in [(vec![3; 4], 3), (vec![4, 7, 5, 6, 2, 7, 5], 3)] {
            let texts = texts_of_sizes(&sizes);
            let partners = PartnerTable::new(&texts, 1, 5).partners(0);
            for (text, &size) in sizes.iter().enumerate() {
                let own =
                    partners.iter().zip(&texts).filter(|(_, of)| **of == text).map(|(&partner, _)| texts[partner]);
                let found: HashSet<usize> = own.collect();
                assert!(!found.contains(&text) && found.len() >= least.min(size), "{text}: {found:?}");
            }
        }
    }

    #[test]
    fn distances_begin_in_the_middle() {
        let distances = |length| (0..length - 1).map(|k| from_the_middle(k, length)).collect::<Vec<_>>();
        assert_eq!((distances(6), distances(7)), (vec![3, 2, 4, 1, 5], vec![3, 4, 2, 5, 1, 6]));
    }
}
