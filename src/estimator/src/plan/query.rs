//! One query of a plan: its documents, its split and the term that it computes.

use std::fmt;

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
}

impl PlannedQuery {
    /// Returns the context and target tokens of this query.
    ///
    /// # Panics
    /// If `documents` has fewer documents than the plan, or a document that is shorter than the plan's window.
    pub fn score_query<T: Clone>(&self, documents: &[Vec<T>]) -> ScoreQuery<T> {
        let (context, target) = match *self {
            PlannedQuery::Whole { document, end } => (&[][..], &documents[document][..end]),
            PlannedQuery::Crossed { x, y, split, end } => (&documents[x][..split], &documents[y][split..end]),
            PlannedQuery::Marginal { document, split, end } => (&[][..], &documents[document][split..end]),
        };
        ScoreQuery { context: context.to_vec(), target: target.to_vec() }
    }

    /// Returns the number of tokens that are scored.
    pub fn target_length(&self) -> usize {
        match *self {
            PlannedQuery::Whole { end, .. } => end,
            PlannedQuery::Crossed { split, end, .. } | PlannedQuery::Marginal { split, end, .. } => end - split,
        }
    }

    /// Returns the number of tokens in the whole sequence, BOS included.
    pub fn sequence_length(&self) -> usize {
        let context = match *self {
            PlannedQuery::Crossed { split, .. } => split,
            PlannedQuery::Whole { .. } | PlannedQuery::Marginal { .. } => 0,
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
        }
    }
}
