//! The marginal term as an average over unrelated contexts: `ln q(y) ≈ ln (1/K) Σ_k q(y|x_k)`.
//!
//! `x_1 .. x_K` are contexts from other texts. Their average has no beginning of a text in it, so it does not have the
//! bias of `ln q(y)` after BOS. Start with [`Averaged::new`]. [`limit`] extrapolates to `K → ∞`.
//!
//! With `q̄(y) = E_x[q(y|x)]` and `I_∞ = E[ln q(y|x) - ln q̄(y)]`:
//!
//! * For any `q`, `I_∞ <= I(X;Y)`, because `I(X;Y) - I_∞ = E_x[KL(p(y|x) || q(y|x))] - KL(p(y) || q̄(y))`, and a KL
//!   divergence does not grow if `x` is averaged out.
//! * The average over K contexts gives an upper bound of `I_∞`, by Jensen's inequality. It is the leave-one-out upper
//!   bound of Poole, Ozair, van den Oord, Alemi and Tucker (*On Variational Bounds of Mutual Information*, 2019,
//!   section 2.1).
//! * InfoNCE (van den Oord, Li and Vinyals, 2018) is a lower bound of `I_∞`, and at most `ln(K + 1)`.

mod limit;

pub(crate) use limit::Limit;

/// The contributions of each document at one point, in nats. A contribution is one document's term of a mean.
pub(crate) struct Averaged {
    /// The numbers of contexts `k`: 1, 2, 4, ... up to `K`, then `K` itself.
    pub(crate) contexts: Vec<usize>,
    /// For each `k`, the contributions of the estimate with an average over `k` contexts.
    pub(crate) curve: Vec<Vec<f64>>,
    /// The contributions of InfoNCE with `K` unrelated contexts and the document's own.
    pub(crate) info_nce: Vec<f64>,
    /// The effective number of contexts: the harmonic mean over documents of `(Σ w)² / Σ w²`, with `w_k = q(y|x_k)`.
    pub(crate) effective: f64,
}

impl Averaged {
    /// Combines `ln q(y_i|x_i)` of each document `i` with `ln q(y_i|x_k)` of its contexts: `crossed[i][k]`. All
    /// documents have the same number of contexts, at least 1.
    ///
    /// The average over `k < K` contexts is a mean over the K subsets of `k` consecutive contexts, in a circle. Every
    /// context is in `k` of them, so at `k = 1` the estimate is vCLUB's. Each document's contribution does not grow
    /// with `k`, by Jensen's inequality.
    pub(crate) fn new(conditional: &[f64], crossed: &[Vec<f64>]) -> Self {
        let count = crossed.first().map_or(0, Vec::len);
        let mut contexts: Vec<usize> =
            std::iter::successors(Some(1), |k| Some(2 * k)).take_while(|&k| k < count).collect();
        contexts.push(count);
        let mut curve = vec![Vec::with_capacity(conditional.len()); contexts.len()];
        let mut info_nce = Vec::with_capacity(conditional.len());
        let mut inverse_effective = 0.0;
        for (&own, weights) in conditional.iter().zip(crossed) {
            for (values, marginal) in curve.iter_mut().zip(marginals(weights)) {
                values.push(own - marginal);
            }
            let total = log_sum_exp(weights);
            info_nce.push(own - log_add(own, total) + ((count + 1) as f64).ln());
            let doubled: Vec<f64> = weights.iter().map(|weight| 2.0 * weight).collect();
            inverse_effective += (log_sum_exp(&doubled) - 2.0 * total).exp();
        }
        Self { contexts, curve, info_nce, effective: conditional.len() as f64 / inverse_effective }
    }

    /// Returns the contributions with an average over all `K` contexts.
    pub(crate) fn all(&self) -> &[f64] {
        self.curve.last().map_or(&[], Vec::as_slice)
    }

    /// Returns the [`limit`](Self::limit) if it can be trusted.
    pub(crate) fn converged_limit(&self) -> Option<Limit> {
        let contexts = self.contexts.last().copied()?;
        self.limit().filter(|limit| limit.has_converged(contexts, self.effective))
    }

    /// Returns the extrapolation to `K → ∞`, from the last three powers of two in the curve; `None` for fewer than
    /// four contexts.
    pub(crate) fn limit(&self) -> Option<Limit> {
        let powers = self.contexts.iter().filter(|k| k.is_power_of_two()).count();
        let [quarter, half, whole] = self.curve.get(powers.checked_sub(3)?..powers)? else { return None };
        Limit::new([quarter, half, whole])
    }
}

/// Returns the mean of `ln (1/k) Σ q(y|x)` over the subsets of `k` contexts, for each `k` of the curve.
fn marginals(weights: &[f64]) -> Vec<f64> {
    let count = weights.len();
    // `sums[s]` is the logarithm of the sum over the `k` contexts from `s` on.
    let (mut sums, mut k) = (weights.to_vec(), 1);
    let mut means = Vec::new();
    while k < count {
        means.push(sums.iter().sum::<f64>() / count as f64 - (k as f64).ln());
        sums = (0..count).map(|start| log_add(sums[start], sums[(start + k) % count])).collect();
        k *= 2;
    }
    means.push(log_sum_exp(weights) - (count as f64).ln());
    means
}

/// Returns `ln(e^a + e^b)`.
fn log_add(a: f64, b: f64) -> f64 {
    a.max(b) + (a.min(b) - a.max(b)).exp().ln_1p()
}

/// Returns `ln Σ e^v`.
fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + values.iter().map(|value| (value - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests;
