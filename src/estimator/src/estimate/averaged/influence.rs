//! The influences of single contexts on averages over contexts.
//!
//! The contexts of one text are contexts of many documents, so a context's influence on one document's contribution is
//! correlated with its influence on the others'. Standard errors account for this through these influences.

/// Returns the influence of each context on a document's `-ln (1/k) Σ q(y|x)`, averaged over the subsets of `k`
/// consecutive contexts in a circle. `weights` has `ln q(y|x)` of the contexts. The influences sum to 0.
///
/// The influence on the logarithm of a mean is, to first order, the context's share of the sum minus `1/k`. A single
/// context (`k = 1`) has the exact influence, its mean `ln q(y|x)` minus its own, divided by the number of contexts.
pub(crate) fn influences(weights: &[f64], k: usize) -> Vec<f64> {
    let count = weights.len() as f64;
    if k == 1 {
        let mean = weights.iter().sum::<f64>() / count;
        return weights.iter().map(|weight| (mean - weight) / count).collect();
    }
    weights
        .iter()
        .zip(log_inverse_sums(weights, k))
        .map(|(weight, sums)| (1.0 - (weight + sums).exp()) / count)
        .collect()
}

/// Returns, for each context, the logarithm of the sum over the subsets that contain it of `1 / Σ q(y|x)`.
fn log_inverse_sums(weights: &[f64], k: usize) -> Vec<f64> {
    let count = weights.len();
    if k == count {
        return vec![-log_sum_exp(weights) + (count as f64).ln(); count];
    }
    // The subset number `s` has the `k` contexts from `s` on. It contains context `j` if `s` is one of the `k` numbers
    // up to `j`.
    let inverse: Vec<f64> = circular_sums(weights, k, |start, step| start + step).iter().map(|sum| -sum).collect();
    circular_sums(&inverse, k, |end, step| end + count - step)
}

/// Returns, for each position in a circle, `ln Σ e^v` over `k` values from there on, in the direction of `next`. `k` is a
/// power of two.
fn circular_sums(values: &[f64], k: usize, next: impl Fn(usize, usize) -> usize) -> Vec<f64> {
    let (mut sums, mut width) = (values.to_vec(), 1);
    while width < k {
        sums = (0..sums.len()).map(|at| log_add(sums[at], sums[next(at, width) % sums.len()])).collect();
        width *= 2;
    }
    sums
}

/// Returns the influence of each context on a document's contribution to InfoNCE, whose `ln q(y|x)` is `own`. The
/// influences sum to 0.
pub(crate) fn info_nce_influences(own: f64, weights: &[f64]) -> Vec<f64> {
    let total = log_add(own, log_sum_exp(weights));
    let shares: Vec<f64> = weights.iter().map(|weight| (weight - total).exp()).collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    shares.iter().map(|share| mean - share).collect()
}

/// Returns `ln(e^a + e^b)`.
pub(crate) fn log_add(a: f64, b: f64) -> f64 {
    a.max(b) + (a.min(b) - a.max(b)).exp().ln_1p()
}

/// Returns `ln Σ e^v`.
pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + values.iter().map(|value| (value - largest).exp()).sum::<f64>().ln()
}
