//! Extrapolation of the averaged marginal to infinitely many contexts.

/// The smallest ratio of successive differences: with finite variance, the bias of the logarithm of a mean falls as
/// `1/k`, and a difference is half of the one before it.
const SMALLEST_RATIO: f64 = 0.5;

/// The ratio of successive differences from which on a sequence does not converge visibly.
const LARGEST_RATIO: f64 = 0.9;

/// The smallest effective number of contexts: below it, one or two contexts determine most averages.
const FEWEST_EFFECTIVE: f64 = 3.0;

/// The smallest error of an extrapolation, as a fraction of the step beyond the last estimate.
const STEP_ERROR: f64 = 0.5;

/// A difference, in nats, that is not distinguished from rounding.
const NEGLIGIBLE: f64 = 1e-9;

/// The extrapolation of estimates `I_k = I_∞ + a k^-b` to `I_∞`.
///
/// The logarithm of a mean of `k` weights is biased by `-Var / (2 k mean²)`, plus terms in `1/k²`, if the weights have
/// finite variance: `b = 1` (Nowozin, *Debiasing Evidence Approximations*, 2018). If their tail is heavier, the bias
/// falls more slowly. So `b` is fitted, in `0 < b <= 1`. With `d_1 = I_(k/2) - I_k` and `d_0 = I_(k/4) - I_(k/2)`,
/// `2^-b = d_1 / d_0 = r`, and `I_∞ = I_k - d_1 r / (1 - r)` (Aitken's extrapolation).
pub(crate) struct Extrapolation {
    /// Contributions of the documents. Their mean is the limit, and their scatter is that of the limit: each is the
    /// limit plus the document's influence on it (the delta method).
    pub(crate) values: Vec<f64>,
    /// The influences of the estimates with `k/4`, `k/2` and `k` contexts on the limit: its derivatives.
    pub(crate) derivatives: [f64; 3],
    /// The `b` of the extrapolation; `None` if the estimates do not depend on `k`.
    pub(crate) rate: Option<f64>,
    /// The error of the extrapolation in nats, to be added to the standard error: the difference between the limits
    /// with the fitted `b` and with `b = 1`, but at least half of the step from the last estimate to the limit.
    pub(crate) error: f64,
}

impl Extrapolation {
    /// Extrapolates from the contributions of estimates with `k/4`, `k/2` and `k` contexts. `None` if the differences
    /// between the estimates do not decrease.
    pub(crate) fn new([quarter, half, whole]: [&Vec<f64>; 3]) -> Option<Self> {
        let [first, middle, last] = [quarter, half, whole].map(|values| mean(values));
        let (before, after) = (first - middle, middle - last);
        if before <= NEGLIGIBLE {
            return Some(Self { values: whole.clone(), derivatives: [0.0, 0.0, 1.0], rate: None, error: 0.0 });
        }
        let ratio = after / before;
        if ratio >= 1.0 {
            return None;
        }
        // The step beyond `last`, and its derivatives with respect to `before` and `after`.
        let aitken = after * ratio / (1.0 - ratio);
        let (step, by_before, by_after) = if ratio <= SMALLEST_RATIO {
            (after, 0.0, 1.0)
        } else {
            let slope = (ratio / (1.0 - ratio)).powi(2);
            (aitken, -slope, 2.0 * ratio / (1.0 - ratio) + slope)
        };
        let mut values = Vec::with_capacity(whole.len());
        for ((quarter, half), whole) in quarter.iter().zip(half).zip(whole) {
            let (own_before, own_after) = (quarter - half - before, half - whole - after);
            values.push(whole - step - by_before * own_before - by_after * own_after);
        }
        let error = (aitken - after).abs().max(STEP_ERROR * step);
        let derivatives = [-by_before, by_before - by_after, 1.0 + by_after];
        Some(Self { values, derivatives, rate: Some((-ratio.log2()).min(1.0)), error })
    }

    /// Returns `true` if the limit can be trusted, for an average over `contexts` contexts, of which `effective` are
    /// effective.
    ///
    /// An average of `K` weights needs about `e^I` of them (Chatterjee and Diaconis, *The Sample Size Required in
    /// Importance Sampling*, 2018), because that is the divergence between the contexts that explain `y` and
    /// unrelated ones. So the limit must be at most `ln K`.
    pub(crate) fn has_converged(&self, contexts: usize, effective: f64) -> bool {
        let slowest = -LARGEST_RATIO.log2();
        mean(&self.values) <= (contexts as f64).ln()
            && effective >= FEWEST_EFFECTIVE
            && self.rate.is_none_or(|rate| rate > slowest)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
