//! The series of a report: the estimators, and the exact values that they are compared with.

use serde::{Deserialize, Serialize};

/// A series of values: a column of a table, a curve in a chart, the points of a fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// The exact mutual information of the process.
    Truth,
    /// The direct estimator.
    Direct,
    /// The direct estimator with the n-gram correction.
    Corrected,
    /// vCLUB: the mean of `ln q(y|x) - ln q(y|x')`, with contexts `x'` of other documents (the negatives).
    ///
    /// It bounds `I(X;Y)` from above only if `q` is close to `p` and each `x'` is independent of `y`. Windows of one
    /// novel share its subject and author, so vCLUB can lie below the direct estimate.
    Vclub,
    /// The exact limit of vCLUB for the process, with independent negatives, as the number of documents grows.
    VclubLimit,
}

impl Series {
    /// All series, in the order of a table's columns.
    pub const ALL: [Series; 5] = [Series::Truth, Series::Direct, Series::Corrected, Series::Vclub, Series::VclubLimit];

    /// Returns the column heading in a table.
    pub fn name(self) -> &'static str {
        match self {
            Series::Truth => "truth",
            Series::Direct => "direct",
            Series::Corrected => "corrected",
            Series::Vclub => "vCLUB",
            Series::VclubLimit => "vCLUB limit",
        }
    }
}
