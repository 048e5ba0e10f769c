//! The series of a report: the estimators, and the exact values that they are compared with.

use serde::{Deserialize, Serialize};

/// A series of values: a column of a table, a curve of a chart, the points of a fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// The process's mutual information.
    Truth,
    /// The direct estimator.
    Direct,
    /// The direct estimator with the n-gram correction.
    Corrected,
    /// vCLUB.
    Vclub,
    /// What vCLUB converges to.
    VclubLimit,
}

impl Series {
    /// All of them, in the order of columns.
    pub const ALL: [Series; 5] = [Series::Truth, Series::Direct, Series::Corrected, Series::Vclub, Series::VclubLimit];

    /// In a table's head.
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
