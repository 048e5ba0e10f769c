//! The query plan: an experiment over documents, splits and ratios, compiled into the smallest set of queries.
//!
//! Start with [`Plan::of`]. A [`PlannedQuery`] is one query with its documents and split. `partners` chooses the other
//! documents for crossed queries, `cost` counts tokens, and a [`ShardIndex`] selects the shard of a plan that one of
//! several processes scores.

mod compile;
mod cost;
mod design;
mod joint;
mod partners;
mod query;
mod shard_index;
mod window_size;

pub use cost::Cost;
pub use design::{Design, PAPER_SPLITS};
pub use query::PlannedQuery;
pub use shard_index::ShardIndex;
pub use window_size::WindowSize;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::plan::compile::compile;
use crate::plan::design::MAX_WINDOW;
use crate::plan::joint::joint_pairs;
use crate::plan::partners::Partners;

/// The pairing of marginal terms with conditional terms. The pairing does not change the queries or the mean, only the
/// variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pairing {
    /// The marginal term of the same `y`: `ln q(y_i|x_i) - ln q(y_i)`. The difficulty of predicting `y_i` cancels out.
    #[default]
    Same,
    /// The marginal term of the partner's `y`: `ln q(y_i|x_i) - ln q(y_j)`, as in the L2M paper's scripts.
    Crossed,
}

/// One point at which mutual information is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The split `ℓ`: tokens in `x`.
    pub split: usize,
}

impl Point {
    /// Returns the length `L`: tokens in `x` and `y` together.
    pub fn length(&self) -> usize {
        self.ratio * self.split
    }
}

/// The points, partners and queries of an experiment over a given number of documents.
///
/// ```
/// use surprisal_estimator::{Design, Plan};
///
/// let splits = vec![2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// let plan = Plan::of(100, Design { splits, ratios: vec![2, 3, 4], window: 2048, ..Design::default() })?;
/// assert_eq!(plan.points().len(), 10 + 9 + 9);
/// assert!(plan.cost().shared < 100 * 10_300);
/// println!("{plan}");
/// # Ok::<(), surprisal_estimator::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    design: Design,
    /// The text of each document. Texts are numbered from 0 in the order of their documents, which are consecutive.
    texts: Vec<usize>,
    points: Vec<Point>,
    /// The first partner of each document.
    partners: Vec<usize>,
    queries: Vec<PlannedQuery>,
    sizes: Option<Vec<WindowSize>>,
}

impl Plan {
    /// Creates a plan over `documents` documents at `splits`, for `L/ℓ = 2`. `seed` determines each document's partner.
    ///
    /// # Errors
    /// The same as [`of`](Self::of).
    pub fn new(documents: usize, splits: &[usize], pairing: Pairing, seed: u64) -> Result<Self, Error> {
        Self::of(documents, Design { splits: splits.to_vec(), pairing, seed, ..Design::default() })
    }

    /// Creates a plan of `design` over `documents` documents, each from a text of its own.
    ///
    /// # Errors
    /// The same as [`of_texts`](Self::of_texts).
    pub fn of(documents: usize, design: Design) -> Result<Self, Error> {
        Self::of_texts(0..documents, design)
    }

    /// Creates a plan of `design` over documents from these texts, one entry per document. Consecutive documents with
    /// equal entries are from one text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than 2 documents; for splits or ratios that are empty, too small or not increasing;
    /// for a split that is too long for the window even at the smallest ratio; for a number of negatives that is 0 or
    /// not less than the number of documents; and for a test of additivity at other splits, or with fewer than four
    /// texts.
    pub fn of_texts(texts: impl IntoIterator<Item = usize>, design: Design) -> Result<Self, Error> {
        let texts = number_texts(texts);
        let documents = texts.len();
        if documents < 2 {
            return Err(Error::invalid("documents", documents, "at least 2, because each document needs a partner"));
        }
        design.check(&texts)?;
        let longest = design.window.min(MAX_WINDOW);
        let mut points = Vec::new();
        for &ratio in &design.ratios {
            for &split in &design.splits {
                if split.saturating_mul(ratio) <= longest {
                    points.push(Point { ratio, split });
                }
            }
        }
        let partners = Partners::new(&texts, design.negatives, design.seed);
        let joint = if design.additivity.is_empty() { Vec::new() } else { joint_pairs(&texts, design.seed) };
        let queries = compile(&partners, &design, &points, &joint);
        Ok(Self { design, texts, points, partners: partners.first(), queries, sizes: None })
    }

    /// Adds the sizes of the documents, one for each, in the order of the documents, so that estimates have surprisal
    /// per character and per byte.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is not one size for each document.
    pub fn with_sizes(mut self, sizes: Vec<WindowSize>) -> Result<Self, Error> {
        if sizes.len() != self.documents() {
            return Err(Error::invalid(
                "number of sizes",
                sizes.len(),
                format!("{}, as in the plan", self.documents()),
            ));
        }
        self.sizes = Some(sizes);
        Ok(self)
    }

    /// Returns the sizes of the documents; `None` if they are unknown.
    pub fn sizes(&self) -> Option<&[WindowSize]> {
        self.sizes.as_deref()
    }

    /// Returns the design.
    pub fn design(&self) -> &Design {
        &self.design
    }

    /// Returns the number of documents.
    pub fn documents(&self) -> usize {
        self.texts.len()
    }

    /// Returns the splits in increasing order: the lengths of `x`.
    pub fn splits(&self) -> &[usize] {
        &self.design.splits
    }

    /// Returns the points at which mutual information is estimated, by ratio, then by split.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Returns the number of tokens in each document's window: the longest `L`.
    pub fn window(&self) -> usize {
        self.points.iter().map(Point::length).max().unwrap_or_default()
    }

    /// Returns the number of tokens in the longest query, BOS included.
    pub fn longest_sequence(&self) -> usize {
        self.queries.iter().map(PlannedQuery::sequence_length).max().unwrap_or_default()
    }

    /// Returns the pairing of the direct estimate's marginal terms.
    pub fn pairing(&self) -> Pairing {
        self.design.pairing
    }

    /// Returns each document's first partner. A document's `y` is scored after its partner's `x`. The first partner
    /// comes from another text if there are several texts. The first partners are a permutation of the documents
    /// without a fixed point.
    pub fn partners(&self) -> &[usize] {
        &self.partners
    }

    /// Returns the text of each document. Texts are numbered from 0, and the documents of a text are consecutive.
    pub fn texts(&self) -> &[usize] {
        &self.texts
    }

    /// Returns the number of texts that the documents are from.
    pub fn text_count(&self) -> usize {
        self.texts.last().map_or(0, |last| last + 1)
    }

    /// Returns `true` if documents `i` and `j` are from different texts, or if all documents are from one text.
    pub(crate) fn are_unrelated(&self, i: usize, j: usize) -> bool {
        self.texts[i] != self.texts[j] || self.text_count() == 1
    }

    /// Returns the queries. Queries that share a prefix are adjacent: a whole document, and each `y` that is scored
    /// after that document's `x`.
    pub fn queries(&self) -> &[PlannedQuery] {
        &self.queries
    }
}

/// Numbers the texts of documents from 0.
fn number_texts(texts: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let (mut numbered, mut last) = (Vec::new(), None);
    for text in texts {
        let number = match (numbered.last(), last) {
            (Some(&number), Some(last)) => number + usize::from(text != last),
            _ => 0,
        };
        numbered.push(number);
        last = Some(text);
    }
    numbered
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::source::ScoreQuery;

    fn documents(plan: &Plan) -> Vec<Vec<u32>> {
        let (count, window) = (plan.documents() as u32, plan.window() as u32);
        (0..count).map(|d| (0..window).map(|t| d * window + t).collect()).collect()
    }

    #[test]
    fn each_planned_query_selects_its_tokens() {
        let documents = vec![vec![0, 1, 2, 3], vec![10, 11, 12, 13]];
        let ask = |planned: PlannedQuery| {
            let query = planned.score_query(&documents);
            (query.context, query.target)
        };
        assert_eq!(ask(PlannedQuery::Whole { document: 1, end: 3 }), (vec![], vec![10, 11, 12]));
        assert_eq!(ask(PlannedQuery::Crossed { x: 0, y: 1, split: 2, end: 4 }), (vec![0, 1], vec![12, 13]));
        assert_eq!(ask(PlannedQuery::Marginal { document: 0, split: 1, end: 2 }), (vec![], vec![1]));
        assert_eq!(Plan::new(2, &[1, 2], Pairing::Same, 0).unwrap().queries().len(), 2 * 5);
    }

    #[test]
    fn points_that_do_not_fit_are_left_out_and_one_y_serves_all_ratios() {
        let design = Design { splits: vec![2, 5], ratios: vec![2, 3], window: 14, ..Design::default() };
        let plan = Plan::of(3, design).unwrap();
        let points: Vec<_> = plan.points().iter().map(|point| (point.ratio, point.split)).collect();
        assert_eq!(points, [(2, 2), (2, 5), (3, 2)]);
        assert_eq!((plan.window(), plan.queries().len()), (10, 3 * 5));
        let ends: BTreeSet<_> = plan
            .queries()
            .iter()
            .filter_map(|query| match query {
                PlannedQuery::Crossed { split, end, .. } | PlannedQuery::Marginal { split, end, .. } => {
                    Some((*split, *end))
                }
                _ => None,
            })
            .collect();
        assert_eq!(ends, BTreeSet::from([(2, 6), (5, 10)]));
    }

    #[test]
    fn errors_name_the_invalid_argument() {
        let design = |splits: &[usize]| Design { splits: splits.to_vec(), window: 100, ..Design::default() };
        for (documents, design, field) in [
            (1, design(&[2]), "documents"),
            (2, design(&[]), "splits"),
            (2, design(&[0, 2]), "splits"),
            (2, design(&[4, 2]), "splits"),
            (2, design(&[2, 2]), "splits"),
            (2, design(&[51]), "splits is 51; it must be at most 50"),
            (2, Design { ratios: vec![1], ..design(&[2]) }, "ratios"),
            (2, Design { negatives: 0, ..design(&[2]) }, "negatives"),
            (2, Design { negatives: 2, ..design(&[2]) }, "negatives"),
        ] {
            let error = Plan::of(documents, design).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }

    proptest! {
        #[test]
        fn first_partners_are_a_permutation_without_fixed_points(
            texts in prop::collection::vec(0_usize..6, 2..40), seed: u64, negatives in 1_usize..5,
        ) {
            let count = texts.len();
            let negatives = negatives.min(count - 1);
            let plan = Plan::of_texts(texts, Design { seed, negatives, ..Design::default() }).unwrap();
            prop_assert!(plan.partners().iter().enumerate().all(|(i, &j)| i != j));
            prop_assert_eq!(plan.partners().iter().collect::<HashSet<_>>().len(), count);
            // Each y is scored after as many distinct x as there are negatives, including its first partner's.
            let crossed: Vec<(usize, usize)> = plan.queries().iter().filter_map(|query| match *query {
                PlannedQuery::Crossed { x, y, split: 2, .. } => Some((y, x)),
                _ => None,
            }).collect();
            prop_assert_eq!(crossed.iter().collect::<HashSet<_>>().len(), count * negatives);
            prop_assert!(plan.partners().iter().enumerate().all(|pair| crossed.contains(&(pair.0, *pair.1))));
        }

        #[test]
        fn costs_match_the_queries(
            count in 4_usize..8, seed: u64, negatives in 1_usize..4, window in 40_usize..90, joint: bool,
            splits in prop::collection::btree_set(1_usize..20, 1..5), ratios in prop::collection::btree_set(2_usize..5, 1..3),
        ) {
            let ratios: Vec<usize> = BTreeSet::into_iter(ratios).collect();
            let splits: Vec<usize> = splits.into_iter().filter(|split| split * ratios[0] <= window).collect();
            prop_assume!(!splits.is_empty());
            let additivity = if joint { splits.clone() } else { Vec::new() };
            let design = Design { splits, ratios, window, negatives, additivity, seed, ..Design::default() };
            let plan = Plan::of(count, design).unwrap();
            prop_assert!(plan.window() <= window);
            let documents = documents(&plan);
            let queries: Vec<ScoreQuery> = plan.queries().iter().map(|query| query.score_query(&documents)).collect();
            let distinct: HashSet<_> = queries.iter().map(|q| (&q.context, &q.target)).collect();
            prop_assert_eq!(distinct.len(), queries.len());
            for (planned, query) in plan.queries().iter().zip(&queries) {
                prop_assert_eq!(planned.sequence_length(), query.sequence_length());
            }
            let apart: usize = queries.iter().map(ScoreQuery::sequence_length).sum();
            prop_assert_eq!(plan.cost().apart, apart as u64);

            // Every prefix is computed once; BOS is computed once per query without a context.
            let mut prefixes = HashSet::new();
            let mut shared = 0;
            for query in &queries {
                let sequence = [&query.context[..], &query.target[..]].concat();
                shared += (1..=sequence.len()).filter(|&end| prefixes.insert(sequence[..end].to_vec())).count() as u64;
                shared += u64::from(query.context.is_empty());
            }
            prop_assert_eq!(plan.cost().shared, shared);
        }
    }
}
