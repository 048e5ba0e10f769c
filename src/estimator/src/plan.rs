//! The plan: an experiment over documents and splits, compiled to the least set of queries, and what they cost.

use std::fmt;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{Error, ScoreQuery};

/// The splits of the paper for a ratio `L/ℓ` of 2: 2, 4, ..., 512.
pub const PAPER_SPLITS: [usize; 9] = [2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Longer windows than this are surely a mistake.
const LONGEST_SPLIT: usize = 1 << 24;

/// Which marginal term stands beside a conditional one. It changes no query and no mean, only the variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pairing {
    /// Of the same `y`: `ln q(y_i|x_i) - ln q(y_i)`. How hard `y_i` is to predict cancels.
    #[default]
    Same,
    /// Of the partner's: `ln q(y_i|x_i) - ln q(y_j)`, as in the paper's scripts.
    Crossed,
}

/// One query of a plan. At split `s`, `x` is a document's first `s` tokens and `y` the `s` that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The whole window after BOS: holds the conditional term of every split.
    Whole {
        /// The document.
        document: usize,
    },
    /// `y` of one document after `x` of another.
    Crossed {
        /// The document of `x`.
        x: usize,
        /// The document of `y`.
        y: usize,
        /// The split.
        split: usize,
    },
    /// `y` after BOS alone.
    Marginal {
        /// The document.
        document: usize,
        /// The split.
        split: usize,
    },
}

impl Step {
    /// The query that this step asks of the documents' windows.
    ///
    /// # Panics
    /// If the documents are not those of the plan: fewer, or shorter than its window.
    pub fn query<T: Clone>(&self, documents: &[Vec<T>]) -> ScoreQuery<T> {
        let (context, target) = match *self {
            Step::Whole { document } => (&[][..], &documents[document][..]),
            Step::Crossed { x, y, split } => (&documents[x][..split], &documents[y][split..2 * split]),
            Step::Marginal { document, split } => (&[][..], &documents[document][split..2 * split]),
        };
        ScoreQuery { context: context.to_vec(), target: target.to_vec() }
    }
}

impl Step {
    /// Tokens that are scored, in a plan with windows of `window` tokens.
    pub fn target_length(&self, window: usize) -> usize {
        match *self {
            Step::Whole { .. } => window,
            Step::Crossed { split, .. } | Step::Marginal { split, .. } => split,
        }
    }

    /// Tokens of the whole sequence, BOS included.
    pub fn sequence_length(&self, window: usize) -> usize {
        let context = match *self {
            Step::Crossed { split, .. } => split,
            Step::Whole { .. } | Step::Marginal { .. } => 0,
        };
        1 + context + self.target_length(window)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Whole { document } => write!(f, "document {document}, whole"),
            Step::Crossed { x, y, split } => {
                write!(f, "y of document {y} after x of document {x} at split {split}")
            }
            Step::Marginal { document, split } => {
                write!(f, "y of document {document} alone at split {split}")
            }
        }
    }
}

/// An experiment over `N` documents (windows of `T` tokens) and splits, with `L/ℓ = 2`.
///
/// ```
/// use surprisal_estimator::{PAPER_SPLITS, Pairing, Plan};
///
/// let plan = Plan::new(100, &PAPER_SPLITS, Pairing::Same, 0)?;
/// assert_eq!(plan.window(), 1024);
/// assert_eq!(plan.steps().len(), 100 * 19);
/// println!("{plan}");
/// # Ok::<(), surprisal_estimator::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    splits: Vec<usize>,
    pairing: Pairing,
    partners: Vec<usize>,
    steps: Vec<Step>,
}

impl Plan {
    /// A plan over `documents` documents at `splits`, each document's partner drawn with `seed`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than 2 documents, and for splits that are none, zero, or not in increasing order.
    pub fn new(documents: usize, splits: &[usize], pairing: Pairing, seed: u64) -> Result<Self, Error> {
        if documents < 2 {
            return Err(Error::invalid("documents", documents, "at least 2: each needs a partner"));
        }
        let increasing = splits.windows(2).all(|pair| pair[0] < pair[1]);
        let bounds = splits.first().zip(splits.last());
        if !increasing || bounds.is_none_or(|(&first, &last)| first == 0 || last > LONGEST_SPLIT) {
            let limit = format!("at least one number in 1..={LONGEST_SPLIT}, in increasing order");
            return Err(Error::invalid("splits", format!("{splits:?}"), limit));
        }
        let order = shuffled(documents, seed);
        let mut partners = vec![0; documents];
        for (place, &document) in order.iter().enumerate() {
            partners[document] = order[(place + 1) % documents];
        }
        Ok(Self { steps: compile(&order, &partners, splits), splits: splits.to_vec(), pairing, partners })
    }

    /// How many documents.
    pub fn documents(&self) -> usize {
        self.partners.len()
    }

    /// The splits, increasing: the lengths of `x`, and of `y`.
    pub fn splits(&self) -> &[usize] {
        &self.splits
    }

    /// Tokens in each document's window: twice the largest split.
    pub fn window(&self) -> usize {
        2 * self.splits.last().copied().unwrap_or_default()
    }

    /// Which marginal term stands beside a conditional one.
    pub fn pairing(&self) -> Pairing {
        self.pairing
    }

    /// `partners()[i]`: the other document, whose `x` is put before `y` of document `i`. A permutation without fixed point.
    pub fn partners(&self) -> &[usize] {
        &self.partners
    }

    /// The queries. Those that share a prefix (a whole document, and what is crossed with its `x`) are neighbours.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What the plan costs.
    pub fn cost(&self) -> Cost {
        let (documents, window) = (self.documents() as u64, self.window() as u64);
        let (count, total) = (self.splits.len() as u64, self.splits.iter().sum::<usize>() as u64);
        Cost {
            queries: self.steps.len() as u64,
            scripts: documents * (1 + window + count * 2 * (1 + window) - total),
            apart: documents * (1 + window + (count + 2 * total) + (count + total)),
            shared: documents * (1 + window + total + (count + total)),
        }
    }
}

/// Token-forwards of a plan: how many tokens, BOS included, go through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Queries asked.
    pub queries: u64,
    /// With the queries of the paper's scripts, where every sequence runs to the window's end.
    pub scripts: u64,
    /// With these queries, each computed from its beginning.
    pub apart: u64,
    /// With these queries, each shared prefix computed once. A server that caches whole blocks of tokens comes close.
    pub shared: u64,
}

/// A seeded permutation of `0..count`.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

/// For each `y` along the cycle: its partner whole, `y` after the partner's `x` (a prefix of that), and `y` alone. Partners
/// are a permutation, so every document is scored whole once.
fn compile(order: &[usize], partners: &[usize], splits: &[usize]) -> Vec<Step> {
    let steps = |&y: &usize| {
        let x = partners[y];
        let crossed = splits.iter().map(move |&split| Step::Crossed { x, y, split });
        let marginal = splits.iter().map(move |&split| Step::Marginal { document: y, split });
        std::iter::once(Step::Whole { document: x }).chain(crossed).chain(marginal)
    };
    order.iter().flat_map(steps).collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = self.cost();
        let splits: Vec<String> = self.splits.iter().map(ToString::to_string).collect();
        writeln!(f, "{} documents of {} tokens, L/ℓ = 2", self.documents(), self.window())?;
        writeln!(f, "splits ℓ: {}", splits.join(" "))?;
        writeln!(f, "{} queries; token-forwards:", grouped(cost.queries))?;
        for (name, tokens) in [
            ("the paper's scripts", cost.scripts),
            ("this plan, every query alone", cost.apart),
            ("this plan, shared prefixes once", cost.shared),
        ] {
            let saving = cost.scripts as f64 / tokens as f64;
            writeln!(f, "  {name:<32}{:>15}{saving:>7.1}x", grouped(tokens))?;
        }
        Ok(())
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn documents(plan: &Plan) -> Vec<Vec<u32>> {
        let (count, window) = (plan.documents() as u32, plan.window() as u32);
        (0..count).map(|d| (0..window).map(|t| d * window + t).collect()).collect()
    }

    #[test]
    fn each_step_asks_what_it_says() {
        let plan = Plan::new(2, &[1, 2], Pairing::Same, 0).unwrap();
        let documents = vec![vec![0, 1, 2, 3], vec![10, 11, 12, 13]];
        let ask = |step: Step| {
            let query = step.query(&documents);
            (query.context, query.target)
        };
        assert_eq!(ask(Step::Whole { document: 1 }), (vec![], vec![10, 11, 12, 13]));
        assert_eq!(ask(Step::Crossed { x: 0, y: 1, split: 2 }), (vec![0, 1], vec![12, 13]));
        assert_eq!(ask(Step::Marginal { document: 0, split: 1 }), (vec![], vec![1]));
        assert_eq!(plan.steps().len(), 2 * 5);
    }

    #[test]
    fn the_paper_s_cost_is_the_published_one() {
        // 2049 tokens a sample, splits 2 to 1024: about 41,000 token-forwards a pair in the published scripts.
        let splits: Vec<usize> = (1..=10).map(|power| 1 << power).collect();
        let cost = Plan::new(2, &splits, Pairing::Same, 0).unwrap().cost();
        assert_eq!(cost.scripts / 2, 40_983);
    }

    #[test]
    fn bad_arguments_are_named() {
        for (documents, splits, field) in [
            (1, &[2_usize][..], "documents"),
            (2, &[], "splits"),
            (2, &[0, 2], "splits"),
            (2, &[4, 2], "splits"),
            (2, &[2, 2], "splits"),
        ] {
            let error = Plan::new(documents, splits, Pairing::Same, 0).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn the_display_tells_the_saving() {
        let text = Plan::new(1000, &PAPER_SPLITS, Pairing::Same, 0).unwrap().to_string();
        assert!(text.contains("1000 documents of 1024 tokens"), "{text}");
        assert!(text.contains("19,000 queries"), "{text}");
        assert!(text.contains("3,078,000"), "{text}");
    }

    proptest! {
        #[test]
        fn partners_are_a_permutation_without_fixed_point(count in 2_usize..60, seed: u64) {
            let plan = Plan::new(count, &[2], Pairing::Same, seed).unwrap();
            prop_assert!(plan.partners().iter().enumerate().all(|(i, &j)| i != j));
            prop_assert_eq!(plan.partners().iter().collect::<HashSet<_>>().len(), count);
        }

        #[test]
        fn costs_are_those_of_the_queries(
            count in 2_usize..8, seed: u64, splits in prop::collection::btree_set(1_usize..20, 1..5),
        ) {
            let splits: Vec<usize> = BTreeSet::into_iter(splits).collect();
            let plan = Plan::new(count, &splits, Pairing::Same, seed).unwrap();
            let documents = documents(&plan);
            let queries: Vec<ScoreQuery> = plan.steps().iter().map(|step| step.query(&documents)).collect();
            let distinct: HashSet<_> = queries.iter().map(|q| (&q.context, &q.target)).collect();
            prop_assert_eq!(distinct.len(), queries.len());
            for (step, query) in plan.steps().iter().zip(&queries) {
                prop_assert_eq!(step.sequence_length(plan.window()), query.sequence_length());
            }
            let apart: usize = queries.iter().map(ScoreQuery::sequence_length).sum();
            prop_assert_eq!(plan.cost().apart, apart as u64);

            // Every prefix is computed once, BOS once for each sequence that does not continue another.
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
