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

mod influence;
mod limit;

use crate::estimate::averaged::influence::{influences, info_nce_influences, log_add, log_sum_exp};
use crate::estimate::averaged::limit::Extrapolation;
use crate::estimate::clusters::Clusters;
use crate::estimate::dyadic::{QueryValue, dyadic_values};
use crate::estimate::terms::Crossed;

/// One estimate whose marginal term comes from contexts of other documents, in nats.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContextMean {
    /// The contributions of the documents. A contribution is one document's term of a mean.
    pub(crate) values: Vec<f64>,
    /// The values of the clusters ([`dyadic_values`]).
    pub(crate) of_clusters: Vec<f64>,
    /// The values of each document's queries; empty for averages over fewer than all contexts.
    pub(crate) queries: Vec<Vec<QueryValue>>,
}

impl ContextMean {
    /// Combines the documents' contributions with the influences of each document's contexts on its contribution.
    /// `influences(i)` has one entry for each of document `i`'s contexts, and their sum is 0.
    fn new(
        values: Vec<f64>,
        contexts: &[Vec<Crossed>],
        clusters: &Clusters,
        influences: impl Fn(usize) -> Vec<f64>,
    ) -> Self {
        let mut queries = Vec::with_capacity(values.len());
        for (document, (value, contexts)) in values.iter().zip(contexts).enumerate() {
            let query = |(context, influence): (&Crossed, f64)| QueryValue {
                x: context.x,
                value: value + contexts.len() as f64 * influence,
            };
            queries.push(contexts.iter().zip(influences(document)).map(query).collect());
        }
        Self { of_clusters: dyadic_values(clusters, &queries), values, queries }
    }
}

/// The extrapolation of the averaged marginal to `K → ∞`.
pub(crate) struct Limit {
    pub(crate) mean: ContextMean,
    /// The `b` of the extrapolation; `None` if the estimates do not depend on `k`.
    pub(crate) rate: Option<f64>,
    /// The error of the extrapolation in nats, to be added to the standard error.
    pub(crate) error: f64,
    /// `true` if the limit can be trusted ([`Extrapolation::has_converged`]).
    pub(crate) has_converged: bool,
}

/// The estimates with an averaged marginal at one point.
pub(crate) struct Averaged {
    /// The numbers of contexts `k`: 1, 2, 4, ... up to `K`, then `K` itself.
    pub(crate) contexts: Vec<usize>,
    /// For each `k`, the estimate with an average over `k` contexts.
    pub(crate) curve: Vec<ContextMean>,
    /// InfoNCE with `K` unrelated contexts and the document's own.
    pub(crate) info_nce: ContextMean,
    /// The effective number of contexts: the harmonic mean over documents of `(Σ w)² / Σ w²`, with `w_k = q(y|x_k)`.
    pub(crate) effective: f64,
    /// The extrapolation from the last three powers of two in the curve; `None` for fewer than four contexts, or if the
    /// estimates do not approach a limit.
    pub(crate) limit: Option<Limit>,
}

impl Averaged {
    /// Combines `ln q(y_i|x_i)` of each document `i` with `ln q(y_i|x_k)` of its contexts. All documents have the same
    /// number of contexts, at least 1.
    ///
    /// The average over `k < K` contexts is a mean over the K subsets of `k` consecutive contexts, in a circle. Every
    /// context is in `k` of them, so at `k = 1` the estimate is vCLUB's. Each document's contribution does not grow
    /// with `k`, by Jensen's inequality.
    pub(crate) fn new(conditional: &[f64], crossed: &[Vec<Crossed>], clusters: &Clusters) -> Self {
        let count = crossed.first().map_or(0, Vec::len);
        let mut contexts: Vec<usize> =
            std::iter::successors(Some(1), |k| Some(2 * k)).take_while(|&k| k < count).collect();
        contexts.push(count);
        let weights: Vec<Vec<f64>> =
            crossed.iter().map(|of| of.iter().map(|context| context.logprob).collect()).collect();
        let mut values = vec![Vec::with_capacity(conditional.len()); contexts.len()];
        let mut info_nce = Vec::with_capacity(conditional.len());
        let mut inverse_effective = 0.0;
        for (&own, weights) in conditional.iter().zip(&weights) {
            for (values, marginal) in values.iter_mut().zip(marginals(weights)) {
                values.push(own - marginal);
            }
            let total = log_sum_exp(weights);
            info_nce.push(own - log_add(own, total) + ((count + 1) as f64).ln());
            let doubled: Vec<f64> = weights.iter().map(|weight| 2.0 * weight).collect();
            inverse_effective += (log_sum_exp(&doubled) - 2.0 * total).exp();
        }
        let mean = |(values, &k): (Vec<f64>, &usize)| {
            ContextMean::new(values, crossed, clusters, |document| influences(&weights[document], k))
        };
        let mut curve: Vec<ContextMean> = values.into_iter().zip(&contexts).map(mean).collect();
        curve.iter_mut().rev().skip(1).for_each(|mean| mean.queries = Vec::new());
        let info_nce = ContextMean::new(info_nce, crossed, clusters, |document| {
            info_nce_influences(conditional[document], &weights[document])
        });
        let effective = conditional.len() as f64 / inverse_effective;
        let limit = Limit::new(&contexts, &curve, effective, |values, influences_of| {
            ContextMean::new(values, crossed, clusters, |document| influences_of(&weights[document]))
        });
        Self { contexts, curve, info_nce, effective, limit }
    }

    /// Returns the [`limit`](Self::limit) if it can be trusted.
    pub(crate) fn converged_limit(&self) -> Option<&Limit> {
        self.limit.as_ref().filter(|limit| limit.has_converged)
    }
}

impl Limit {
    /// Extrapolates a curve with these numbers of contexts, of which `effective` are effective. `mean` combines the
    /// documents' contributions with the influences of contexts with given weights.
    fn new(
        contexts: &[usize],
        curve: &[ContextMean],
        effective: f64,
        mean: impl FnOnce(Vec<f64>, &dyn Fn(&[f64]) -> Vec<f64>) -> ContextMean,
    ) -> Option<Self> {
        let powers = contexts.iter().filter(|k| k.is_power_of_two()).count();
        let last = powers.checked_sub(3)?..powers;
        let (&[few, more, most], [quarter, half, whole]) = (&contexts[last.clone()], &curve[last]) else { return None };
        let extrapolation = Extrapolation::new([&quarter.values, &half.values, &whole.values])?;
        let has_converged = extrapolation.has_converged(*contexts.last()?, effective);
        let Extrapolation { values, derivatives, rate, error } = extrapolation;
        let influences_of = |weights: &[f64]| {
            let mut sums = vec![0.0; weights.len()];
            for (k, derivative) in [few, more, most].into_iter().zip(derivatives) {
                for (sum, influence) in sums.iter_mut().zip(influences(weights, k)) {
                    *sum += derivative * influence;
                }
            }
            sums
        };
        Some(Self { mean: mean(values, &influences_of), rate, error, has_converged })
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

#[cfg(test)]
mod tests;
