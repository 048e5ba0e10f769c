//! A query of a plan: its documents, its split and the term that it is for.

use std::fmt;

use crate::source::ScoreQuery;

/// One query of a plan. At split `s`, `x` is a document's first `s` tokens, and `y` those from there to `end`: long enough for
/// every ratio `L/ℓ`, of which the smaller ones read the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedQuery {
    /// The whole window after BOS: holds the conditional term of every split.
    Whole {
        /// The document.
        document: usize,
        /// The window's length.
        end: usize,
    },
    /// `y` of one document after `x` of another.
    Crossed {
        /// The document of `x`.
        x: usize,
        /// The document of `y`.
        y: usize,
        /// The split.
        split: usize,
        /// Where `y` ends.
        end: usize,
    },
    /// `y` after BOS alone.
    Marginal {
        /// The document.
        document: usize,
        /// The split.
        split: usize,
        /// Where `y` ends.
        end: usize,
    },
}

impl PlannedQuery {
    /// Returns this query's tokens in the documents' windows.
    ///
    /// # Panics
    /// If the documents are not those of the plan: fewer, or shorter than its window.
    pub fn score_query<T: Clone>(&self, documents: &[Vec<T>]) -> ScoreQuery<T> {
        let (context, target) = match *self {
            PlannedQuery::Whole { document, end } => (&[][..], &documents[document][..end]),
            PlannedQuery::Crossed { x, y, split, end } => (&documents[x][..split], &documents[y][split..end]),
            PlannedQuery::Marginal { document, split, end } => (&[][..], &documents[document][split..end]),
        };
        ScoreQuery { context: context.to_vec(), target: target.to_vec() }
    }

    /// Tokens that are scored.
    pub fn target_length(&self) -> usize {
        match *self {
            PlannedQuery::Whole { end, .. } => end,
            PlannedQuery::Crossed { split, end, .. } | PlannedQuery::Marginal { split, end, .. } => end - split,
        }
    }

    /// Tokens of the whole sequence, BOS included.
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
            PlannedQuery::Whole { document, .. } => write!(f, "document {document}, whole"),
            PlannedQuery::Crossed { x, y, split, .. } => {
                write!(f, "y of document {y} after x of document {x} at split {split}")
            }
            PlannedQuery::Marginal { document, split, .. } => {
                write!(f, "y of document {document} alone at split {split}")
            }
        }
    }
}
