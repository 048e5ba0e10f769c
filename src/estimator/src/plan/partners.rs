//! The choice of partners. Crossed queries score a document's `y` after the `x` of other documents, which are that
//! document's partners. Partners from other texts come first, and from as many texts as possible.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The partners of documents. The order of the texts, and of the documents within each text, is random and determined by
/// a seed.
#[derive(Debug)]
pub(crate) struct Partners {
    /// The documents in the order of their queries.
    order: Vec<usize>,
    /// The partners of each document. The first ones are a permutation.
    of_documents: Vec<Vec<usize>>,
}

impl Partners {
    /// Chooses `count` partners for each of the documents from these texts, which are numbered from 0. The documents of a
    /// text are consecutive. All documents of a single text are treated as if they were texts.
    pub(crate) fn new(texts: &[usize], count: usize, seed: u64) -> Self {
        let columns = shuffled_texts(texts, seed);
        let first = first_partners(&columns);
        let table = Table::new(columns);
        let partners_of = |document: usize| {
            let others = table.other_documents(document).filter(|&partner| partner != first[document]);
            std::iter::once(first[document]).chain(others).take(count).collect()
        };
        Self { of_documents: (0..texts.len()).map(partners_of).collect(), order: table.order() }
    }

    /// Returns all documents in the order of their queries.
    pub(crate) fn order(&self) -> &[usize] {
        &self.order
    }

    /// Returns each document's first partner: a permutation without a fixed point. It is from another text, unless one
    /// text has more than half of the documents.
    pub(crate) fn first(&self) -> Vec<usize> {
        self.of_documents.iter().map(|partners| partners[0]).collect()
    }

    /// Returns, for each document, the documents that it is a partner of, in the order of their lists of partners.
    pub(crate) fn inverse(&self) -> Vec<Vec<usize>> {
        let mut ranked: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.order.len()];
        for (y, partners) in self.of_documents.iter().enumerate() {
            partners.iter().enumerate().for_each(|(rank, &x)| ranked[x].push((rank, y)));
        }
        ranked.iter_mut().for_each(|of_x| of_x.sort_unstable());
        ranked.into_iter().map(|of_x| of_x.into_iter().map(|(_, y)| y).collect()).collect()
    }
}

/// Returns the documents of each text. Texts are in the order of their first documents in a random order of all.
fn shuffled_texts(texts: &[usize], seed: u64) -> Vec<Vec<usize>> {
    let mut shuffled: Vec<usize> = (0..texts.len()).collect();
    shuffled.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let count = texts.last().map_or(0, |last| last + 1);
    if count == 1 {
        return shuffled.into_iter().map(|document| vec![document]).collect();
    }
    let mut by_text: Vec<Vec<(usize, usize)>> = vec![Vec::new(); count];
    for (place, document) in shuffled.into_iter().enumerate() {
        by_text[texts[document]].push((place, document));
    }
    by_text.sort_unstable();
    by_text.into_iter().map(|text| text.into_iter().map(|(_, document)| document).collect()).collect()
}

/// Returns each document's first partner.
///
/// The documents are divided into circles, on which those of a text are neighbors: circle `r` has each document whose
/// place, in an order by text, is `r` modulo the number of circles. A partner is at a distance on its circle at which no
/// document is from the same text. The distance depends on the circle, so that the documents of one text have partners
/// in several texts. There are as many circles as allow this.
fn first_partners(columns: &[Vec<usize>]) -> Vec<usize> {
    let by_text: Vec<usize> = columns.concat();
    let largest = columns.iter().map(Vec::len).max().unwrap_or(1);
    let distances = |circles: usize, length: usize| (length + 1).saturating_sub(2 * largest.div_ceil(circles));
    let circles = (1..=largest).rev().find(|&circles| distances(circles, by_text.len() / circles) > 0).unwrap_or(1);
    let mut first = vec![0; by_text.len()];
    for circle in 0..circles {
        let documents: Vec<usize> = by_text.iter().copied().skip(circle).step_by(circles).collect();
        let distance = match distances(circles, documents.len()) {
            // One text has more than half of the documents: most of its partners are from other texts.
            0 => documents.len() / 2,
            distances => largest.div_ceil(circles) + circle % distances,
        };
        for (place, &document) in documents.iter().enumerate() {
            first[documents[(place + documents.len() - distance) % documents.len()]] = document;
        }
    }
    first
}

/// The documents in a table with one column per text. Columns of short texts end early.
struct Table {
    columns: Vec<Vec<usize>>,
    /// The row and the column of each document.
    places: Vec<[usize; 2]>,
    rows: usize,
}

impl Table {
    fn new(columns: Vec<Vec<usize>>) -> Self {
        let mut places = vec![[0; 2]; columns.iter().map(Vec::len).sum()];
        for (column, documents) in columns.iter().enumerate() {
            documents.iter().enumerate().for_each(|(row, &document)| places[document] = [row, column]);
        }
        Self { rows: columns.iter().map(Vec::len).max().unwrap_or(0), columns, places }
    }

    /// Returns the documents row by row.
    fn order(&self) -> Vec<usize> {
        let row = |row: usize| self.columns.iter().filter_map(move |column| column.get(row).copied());
        (0..self.rows).flat_map(row).collect()
    }

    /// Returns all documents but one: first those of other texts, one of each text in turn, then those of its own text.
    fn other_documents(&self, document: usize) -> impl Iterator<Item = usize> {
        let [row, column] = self.places[document];
        let (texts, rows) = (self.columns.len(), self.rows);
        let at = move |down: usize, right: usize| {
            let text = &self.columns[(column + right) % texts];
            (down < text.len()).then(|| text[(row + down) % text.len()])
        };
        let others = texts - 1;
        // The first text depends on the row, so that the documents of one text begin with different texts.
        let of_others = (0..rows * others).filter_map(move |k| at(k / others, 1 + (row + k) % others));
        of_others.chain((1..rows).filter_map(move |down| at(down, 0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

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
            let count = 1 + (part * (texts.len() - 2) as f64) as usize;
            let partners = Partners::new(&texts, count, seed);
            let is_other = |document: usize, partner: usize| texts[partner] != texts[document] || sizes.len() == 1;
            let largest = sizes.iter().copied().max().unwrap();
            for (document, own) in partners.of_documents.iter().enumerate() {
                prop_assert_eq!(own.iter().chain([&document]).collect::<HashSet<_>>().len(), count + 1);
                let others = own.iter().filter(|&&partner| is_other(document, partner)).count();
                let possible = if sizes.len() == 1 { count } else { texts.len() - sizes[texts[document]] };
                // Only the first partner may be from the same text, if most documents are from one text.
                let is_dominated = sizes.len() > 1 && 2 * largest > texts.len();
                prop_assert!(others + usize::from(is_dominated) >= possible.min(count), "{own:?} of {document}");
                prop_assert!(own[1..].is_sorted_by_key(|&partner| !is_other(document, partner)));
                prop_assert!(is_dominated || is_other(document, own[0]));
            }
            prop_assert_eq!(partners.first().iter().collect::<HashSet<_>>().len(), texts.len());
            prop_assert_eq!(partners.order().iter().collect::<HashSet<_>>().len(), texts.len());
        }

        /// The partners are from as many texts as possible, up to the first one, which is chosen on its own.
        #[test]
        fn partners_are_from_many_texts(sizes in prop::collection::vec(4_usize..8, 3..9), seed: u64) {
            let texts = texts_of_sizes(&sizes);
            let partners = Partners::new(&texts, sizes.len() - 1, seed);
            for own in &partners.of_documents {
                let found: HashSet<usize> = own.iter().map(|&partner| texts[partner]).collect();
                prop_assert!(found.len() + 2 >= sizes.len(), "{found:?}");
            }
        }

        /// If every text has one document, or all documents are of one text, partners are neighbors in the shuffled
        /// order.
        #[test]
        fn partners_are_neighbors_if_texts_do_not_matter(count in 2_usize..40, one: bool, seed: u64) {
            let texts: Vec<usize> = (0..count).map(|document| if one { 0 } else { document }).collect();
            let partners = Partners::new(&texts, count - 1, seed);
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(partners.order(), &order[..]);
            for (place, &document) in order.iter().enumerate() {
                let own = &partners.of_documents[document];
                prop_assert!((0..count - 1).all(|k| own[k] == order[(place + k + 1) % count]), "{own:?}");
            }
        }
    }

    #[test]
    fn documents_of_a_text_have_first_partners_in_several_other_texts() {
        for sizes in [vec![3; 4], vec![4, 7, 5, 6, 2, 7, 5]] {
            let texts = texts_of_sizes(&sizes);
            let first = Partners::new(&texts, 1, 5).first();
            for (text, &size) in sizes.iter().enumerate() {
                let own = first.iter().zip(&texts).filter(|(_, of)| **of == text).map(|(&partner, _)| texts[partner]);
                let found: HashSet<usize> = own.collect();
                assert!(!found.contains(&text) && found.len() >= size.min(3), "{text}: {found:?}");
            }
        }
    }
}
