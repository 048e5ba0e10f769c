//! One query of a plan: its documents, its split and the term that it computes.

use std::fmt;
use std::ops::Range;

use crate::source::ScoreQuery;

/// One query of a plan.
///
/// At split `s`, `x` is a document's first `s` tokens, and `y` is the tokens from there to `end`. `end` is chosen for
/// the largest ratio `L/ℓ` at that split; smaller ratios use the beginning of `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedQuery {
    /// The whole window after BOS, which contains the conditional term of every split.
    Whole {
        /// The document.
        document: usize,
        /// The end of the window.
        end: usize,
    },
    /// The `y` of one document, after the `x` of another.
    Crossed {
        /// The document that `x` is from.
        x: usize,
        /// The document that `y` is from.
        y: usize,
        /// The split.
        split: usize,
        /// The end of `y` in its document.
        end: usize,
    },
    /// The `y` of a document without its `x`, after BOS only.
    Marginal {
        /// The document.
        document: usize,
        /// The split.
        split: usize,
        /// The end of `y` in its document.
        end: usize,
    },
    /// The `y` of two unrelated documents, one after the other, after the `x` of both.
    Joint {
        /// The documents.
        documents: [usize; 2],
        /// The split of each.
        split: usize,
        /// The end of `y` in each.
        end: usize,
    },
    /// The `y` of two unrelated documents, one after the other, after BOS only.
    JointMarginal {
        /// The documents.
        documents: [usize; 2],
        /// The split of each.
        split: usize,
        /// The end of `y` in each.
        end: usize,
    },
}

impl PlannedQuery {
    /// Returns the context and target tokens of this query.
    ///
    /// # Panics
    /// If `documents` has fewer documents than the plan, or a document that is shorter than the plan's window.
    pub fn score_query<T: Clone>(&self, documents: &[Vec<T>]) -> ScoreQuery<T> {
        let part = |document: usize, range: Range<usize>| documents[document][range].to_vec();
        let parts = |of: [usize; 2], range: Range<usize>| of.map(|document| part(document, range.clone())).concat();
        let (context, target) = match *self {
            PlannedQuery::Whole { document, end } => (Vec::new(), part(document, 0..end)),
            PlannedQuery::Crossed { x, y, split, end } => (part(x, 0..split), part(y, split..end)),
            PlannedQuery::Marginal { document, split, end } => (Vec::new(), part(document, split..end)),
            PlannedQuery::Joint { documents, split, end } => (parts(documents, 0..split), parts(documents, split..end)),
            PlannedQuery::JointMarginal { documents, split, end } => (Vec::new(), parts(documents, split..end)),
        };
        ScoreQuery { context, target }
    }

    /// Returns the number of tokens that are scored.
    pub fn target_length(&self) -> usize {
        match *self {
            PlannedQuery::Whole { end, .. } => end,
            PlannedQuery::Crossed { split, end, .. } | PlannedQuery::Marginal { split, end, .. } => end - split,
            PlannedQuery::Joint { split, end, .. } | PlannedQuery::JointMarginal { split, end, .. } => {
                2 * (end - split)
            }
        }
    }

    /// Returns the number of tokens in the whole sequence, BOS included.
    pub fn sequence_length(&self) -> usize {
        let context = match *self {
            PlannedQuery::Crossed { split, .. } => split,
            PlannedQuery::Joint { split, .. } => 2 * split,
            PlannedQuery::Whole { .. } | PlannedQuery::Marginal { .. } | PlannedQuery::JointMarginal { .. } => 0,
        };
        1 + context + self.target_length()
    }
}

impl fmt::Display for PlannedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlannedQuery::Whole { document, .. } => write!(f, "document {document} (whole window)"),
            PlannedQuery::Crossed { x, y, split, .. } => {
                write!(f, "y of document {y} after x of document {x} at split {split}")
            }
            PlannedQuery::Marginal { document, split, .. } => {
                write!(f, "y of document {document} without context at split {split}")
            }
            PlannedQuery::Joint { documents: [a, b], split, .. } => {
                write!(f, "y of documents {a} and {b} after x of both at split {split}")
            }
            PlannedQuery::JointMarginal { documents: [a, b], split, .. } => {
                write!(f, "y of documents {a} and {b} without context at split {split}")
            }
        }
    }
}
