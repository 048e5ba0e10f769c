//! The dependence of the averaged marginal on the number of contexts, as a report shows it.

use serde::{Deserialize, Serialize};

use crate::estimate::averaged::ContextMean;
use crate::estimate::contributions::Contributions;
use crate::plan::Point;
use crate::value::Estimate;

/// An estimate with the marginal term averaged over some of the contexts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextPoint {
    /// The number of contexts `k`.
    pub contexts: usize,
    /// The mean of `ln q(y|x) - ln mean_k q(y|x_k)` over documents and subsets of `k` contexts. At `k = 1` this is
    /// vCLUB, with contexts from other texts.
    pub estimate: Estimate,
}

/// The estimates at one point, by number of contexts, and the convergence of that sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextCurve {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The length `L`: tokens in `x` and `y` together.
    pub length: usize,
    /// The split `ℓ`: tokens in `x`.
    pub split: usize,
    /// The estimates for `k` = 1, 2, 4, ..., K contexts.
    pub points: Vec<ContextPoint>,
    /// The effective number of contexts: the harmonic mean over documents of `(Σ w)² / Σ w²`, with `w_k = q(y|x_k)`.
    /// Near 1, a single context determines the average.
    pub effective: f64,
    /// The exponent `b` of `I_k = I_∞ + a k^-b` in the extrapolation; 1 if the weights have finite variance. `None`
    /// without an extrapolation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// The error of the extrapolation in nats: the difference from the limit with `b = 1`, but at least half of the step
    /// from K contexts to the limit. `None` without an extrapolation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_error: Option<f64>,
    /// `true` if the extrapolation can be trusted: the limit is at most `ln K`, at least three contexts are effective,
    /// and the differences between successive estimates fall to less than 0.9 of the one before.
    pub has_converged: bool,
}

impl ContextCurve {
    /// Returns the curve at a point; `None` for fewer than two contexts.
    pub(crate) fn of(point: &Point, contributions: &Contributions) -> Option<Self> {
        let averaged = contributions.averaged.as_ref()?;
        let limit = averaged.limit.as_ref();
        let at = |(&contexts, average): (&usize, &ContextMean)| {
            let estimate = Estimate::of(&average.of_clusters);
            ContextPoint { contexts, estimate }
        };
        Some(Self {
            ratio: point.ratio,
            length: point.length(),
            split: point.split,
            points: averaged.contexts.iter().zip(&averaged.curve).map(at).collect(),
            effective: averaged.effective,
            rate: limit.and_then(|limit| limit.rate),
            limit_error: limit.map(|limit| limit.error),
            has_converged: averaged.converged_limit().is_some(),
        })
    }

    /// Returns the number of contexts, K.
    pub fn contexts(&self) -> usize {
        self.points.last().map_or(0, |point| point.contexts)
    }
}
