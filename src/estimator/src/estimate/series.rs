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
    /// The direct estimator with the marginal term averaged over contexts from other texts: the mean of
    /// `ln q(y|x) - ln mean_k q(y|x_k)`, an upper bound of [`AveragedLimit`](Self::AveragedLimit).
    Averaged,
    /// [`Averaged`](Self::Averaged), extrapolated to infinitely many contexts.
    ///
    /// For any model, the limit is at most the mutual information.
    AveragedLimit,
    /// InfoNCE, a lower bound of the mutual information for any model. It is at most `ln(K + 1)` with K contexts.
    InfoNce,
    /// The exact limit of vCLUB for the process, with independent negatives, as the number of documents grows.
    VclubLimit,
}

impl Series {
    /// All series, in the order of a table's columns.
    pub const ALL: [Series; 8] = [
        Series::Truth,
        Series::Direct,
        Series::Corrected,
        Series::Vclub,
        Series::Averaged,
        Series::AveragedLimit,
        Series::InfoNce,
        Series::VclubLimit,
    ];

    /// Returns `true` if the series averages probabilities over contexts from other texts.
    pub(crate) fn is_averaged(self) -> bool {
        matches!(self, Series::Averaged | Series::AveragedLimit | Series::InfoNce)
    }

    /// Returns `true` if power laws are fitted to the series. With a fixed number of contexts, the distance of the
    /// averaged estimate and of InfoNCE from the information grows with `L`, so a fit would mislead.
    pub(crate) fn has_fit(self) -> bool {
        !matches!(self, Series::Averaged | Series::InfoNce)
    }

    /// All estimators. The other series have exact values.
    pub(crate) const ESTIMATORS: [Series; 6] =
        [Series::Direct, Series::Corrected, Series::Vclub, Series::Averaged, Series::AveragedLimit, Series::InfoNce];

    /// The estimators that are plain means over documents, with one contribution each.
    pub(crate) const MEANS: [Series; 3] = [Series::Direct, Series::Corrected, Series::Vclub];

    /// Returns the column heading in a table.
    pub fn name(self) -> &'static str {
        match self {
            Series::Truth => "truth",
            Series::Direct => "direct",
            Series::Corrected => "corrected",
            Series::Vclub => "vCLUB",
            Series::Averaged => "averaged",
            Series::AveragedLimit => "averaged (K → ∞)",
            Series::InfoNce => "InfoNCE",
            Series::VclubLimit => "vCLUB limit",
        }
    }
}
