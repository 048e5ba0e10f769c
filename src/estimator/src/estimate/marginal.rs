//! The choice of a marginal term.

use serde::{Deserialize, Serialize};

/// The marginal term of the estimate from which a report draws its conclusion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Marginal {
    /// `ln q(y)` after BOS, with the n-gram correction if there is one.
    #[default]
    Bos,
    /// `ln q(y)` averaged over contexts from other texts, extrapolated to infinitely many contexts.
    Averaged,
}

impl Marginal {
    /// The smallest number of contexts for [`Averaged`](Self::Averaged): three powers of two for the extrapolation.
    pub(crate) const FEWEST_CONTEXTS: usize = 4;

    /// Returns `true` for the default.
    pub(crate) fn is_bos(&self) -> bool {
        *self == Self::Bos
    }
}
