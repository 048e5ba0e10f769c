//! The estimators, which compute the mutual information at each point, in nats, from a plan's log-probabilities.
//!
//! Start with [`Estimates::new`]. `terms` sums log-probabilities into the terms of the estimators. `contributions`
//! combines the terms into one value per document and estimator; `averaged` has the estimators with an averaged
//! marginal term, and `consistency` checks their properties. Standard errors and intervals are computed over `clusters`
//! of documents: [`Bootstrap`] resamples the means of the clusters for confidence intervals, including those of
//! power-law exponents (`exponents`). `entropy_rate` uses only the surprisal of whole windows. A [`Series`] names an
//! estimator.

mod averaged;
mod bootstrap;
mod clusters;
mod consistency;
mod context_curve;
mod contributions;
mod convergence;
mod correction;
mod divergence;
mod document_terms;
mod dyadic;
mod entropy_rate;
mod exponents;
mod laws;
mod marginal;
mod nll_bins;
mod scatter;
mod series;
mod series_points;
mod so_far;
mod terms;

pub use bootstrap::Bootstrap;
pub(crate) use clusters::Clusters;
pub use consistency::{ConsistencyCheck, ConsistencyTest};
pub use context_curve::{ContextCurve, ContextPoint};
pub use convergence::{Convergence, ConvergencePoint, HalvesDifference};
pub use correction::Correction;
pub use divergence::Divergence;
pub use document_terms::{DocumentTerms, DocumentWindow, PointTerms};
pub use entropy_rate::{
    BlockInformation, EntropyRate, OMITTED_POSITIONS, RateDoubt, RateFit, RateFits, TextUnit, UnitRates,
};
pub(crate) use entropy_rate::{MIN_RANGES, ratio_values};
pub use exponents::ExponentInterval;
pub use laws::{LocalExponent, SeriesLaws};
pub use marginal::Marginal;
pub use nll_bins::PositionBin;
pub use scatter::Sampling;
pub use series::Series;
pub(crate) use so_far::RunningEstimates;
pub use so_far::{EstimatesSoFar, PointSoFar, SeriesSoFar};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::estimate::averaged::Averaged;
use crate::estimate::bootstrap::CONFIDENCE_LEVEL;
use crate::estimate::consistency::checks;
use crate::estimate::contributions::{
    AVERAGED, AVERAGED_LIMIT, CORRECTED, Contributions, DIRECT, INFO_NCE, VCLUB, cluster_rows, column, rows,
};
use crate::estimate::convergence::{convergence, halves};
use crate::estimate::exponents::exponent_intervals;
use crate::estimate::laws::{fit_laws, local_exponents};
use crate::estimate::nll_bins::{document_bins, position_bins};
use crate::estimate::terms::{collect, sum};
use crate::plan::{Pairing, Plan, PlannedQuery, Point};
use crate::value::Estimate;

/// The estimates at one point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointEstimate {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The length `L`: tokens in `x` and `y` together.
    pub length: usize,
    /// The split `ℓ`: tokens in `x`.
    pub split: usize,
    /// The direct estimate: `mean[ln q(y|x) - ln q(y)]`. The plan's [`Pairing`] chooses the marginal term for the
    /// standard error. It does not change the mean, so the interval is always that of the same `y` in both terms.
    pub direct: Estimate,
    /// The direct estimate's standard error with each choice of the marginal term. The mean is the same for both.
    pub pairing_errors: PairingErrors,
    /// The direct estimate with the n-gram [`Correction`]; `None` without a correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Estimate>,
    /// The vCLUB estimate: `mean_i[ln q(y_i|x_i) - mean_j ln q(y_i|x_j)]`. `mean_j` runs over the negatives of `y_i`:
    /// its contexts `x_j` from other documents.
    pub vclub: Estimate,
    /// The estimate with the marginal term averaged over K contexts from other texts:
    /// `mean_i[ln q(y_i|x_i) - ln mean_k q(y_i|x_k)]`. `None` for fewer than two contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaged: Option<Estimate>,
    /// `averaged`, extrapolated to infinitely many contexts; its error includes that of the extrapolation. `None` for
    /// fewer than four contexts, or if the sequence has not converged ([`ContextCurve`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaged_limit: Option<Estimate>,
    /// InfoNCE with K contexts from other texts and the document's own. `None` for fewer than two contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info_nce: Option<Estimate>,
}

/// The standard errors of a direct estimate with each [`Pairing`], in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairingErrors {
    /// The error with the same `y` in both terms ([`Pairing::Same`]).
    pub same: f64,
    /// The error with the partner's `y` in the marginal term ([`Pairing::Crossed`]). This error treats the two terms
    /// as independent. Because the mean does not depend on the pairing, this error is too large if the terms are
    /// positively correlated, as they usually are.
    pub crossed: f64,
}

/// The estimates of an experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimates {
    /// The number of documents.
    pub documents: usize,
    /// The pairing of conditional and marginal terms.
    pub pairing: Pairing,
    /// The n-gram correction; `None` if there is none.
    pub correction: Option<Correction>,
    /// The estimates at the plan's points, by ratio, then by increasing length.
    pub points: Vec<PointEstimate>,
    /// The number of texts that the documents come from. Standard errors and intervals are computed over texts, or over
    /// documents if there is only one text.
    pub texts: usize,
    /// The effective number of texts, `N² / Σ n²` for `N` documents, of which a text has `n` (Kish, 1965); the number of
    /// documents if there is only one text.
    pub effective_texts: f64,
    /// The number of contexts from other texts that each `y` has at least; if there is only one text, from other
    /// documents.
    pub unrelated_contexts: usize,
    /// The dependence of the averaged marginal on the number of contexts, at each point; empty for fewer than two.
    pub context_curves: Vec<ContextCurve>,
    /// The checks of properties that mutual information has.
    pub consistency: Vec<ConsistencyCheck>,
    /// The convergence of each series at each point with the number of texts.
    pub convergence: Vec<Convergence>,
    /// The differences between the two halves of the texts at the longest `L` of each ratio; empty for fewer than four
    /// texts.
    pub halves: Vec<HalvesDifference>,
    /// The confidence intervals of the exponents, for the fits that have one.
    pub exponents: Vec<ExponentInterval>,
    /// The laws fitted with the covariance between points, by ratio and series; without those that have too few points
    /// or documents.
    pub laws: Vec<SeriesLaws>,
    /// The exponents between neighboring points, by ratio and series.
    pub local_exponents: Vec<LocalExponent>,
    /// The mean of `-ln q(x_t | x_0 .. x_(t-1))` over documents, in nats, for each position `t` of the window.
    pub nll: Vec<Estimate>,
    /// The means of `nll` over ranges of positions, with errors over texts.
    pub nll_bins: Vec<PositionBin>,
    /// The entropy rate, and quantities that follow from surprisal by position.
    pub entropy_rate: Option<EntropyRate>,
    /// The mean of `-ln q` of each document over each of the ranges of `nll_bins`, in nats, with one entry per document in
    /// each range.
    pub bin_surprisals: Vec<Vec<f64>>,
    /// The surprisal `-ln q` of each document's whole window, in nats.
    pub surprisals: Vec<f64>,
    /// The sums behind the estimates, one entry per document and point.
    pub terms: DocumentTerms,
}

impl Estimates {
    /// Computes estimates from `logprobs`: for each of the plan's queries, the log-probabilities of its target tokens
    /// in nats.
    ///
    /// The standard error of the n-gram entropy is common to all splits, and averaging over documents does not reduce
    /// it. As in the L2M paper's scripts, it is added in quadrature to the standard error of the corrected estimate at
    /// the smallest split only.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the answers do not match the plan's queries, if the correction's n-grams are longer than
    /// the shortest `y`, or if the correction's weight is not from 0 to 1. [`Error::NotFinite`] for a log-probability
    /// that is not finite.
    pub fn new(plan: &Plan, logprobs: &[Vec<f32>], correction: Option<Correction>) -> Result<Self, Error> {
        if let Some(correction) = &correction {
            correction.check(plan)?;
        }
        let ngram = correction.map_or(0, |correction| correction.entropy.n);
        let terms = collect(plan, logprobs, ngram)?;
        let contributions: Vec<_> = terms.iter().map(|terms| Contributions::new(terms, plan, correction)).collect();
        let clusters = Clusters::of(plan);
        let rows = rows(&contributions, plan.documents());
        let cluster_rows = cluster_rows(&contributions, &clusters);
        let bootstrap = Bootstrap::of_clusters(&cluster_rows, &clusters, plan);
        let mut points = Vec::with_capacity(terms.len());
        // The entropy's error is common to all splits; only the smallest includes it.
        let entropy_error = |split: usize| correction.filter(|_| split == plan.splits()[0]).map(|c| c.entropy.error);
        for (index, (&point, contributions)) in plan.points().iter().zip(&contributions).enumerate() {
            let entropy_error = entropy_error(point.split);
            points.push(PointEstimate::new(index, point, contributions, plan.pairing(), &bootstrap, entropy_error));
        }
        let constant_error = |index: usize, estimator: usize| match estimator {
            CORRECTED => entropy_error(plan.points()[index].split).unwrap_or_default(),
            AVERAGED_LIMIT => {
                let limit = contributions[index].averaged.as_ref().and_then(Averaged::converged_limit);
                limit.map_or(0.0, |limit| limit.error)
            }
            _ => 0.0,
        };
        let points_and_contributions = plan.points().iter().zip(&contributions);
        let curves = points_and_contributions.filter_map(|(point, of)| ContextCurve::of(point, of));
        let whole = whole(plan, logprobs);
        let bin_surprisals =
            document_bins(plan.window(), plan.documents(), |document, range| -sum(&whole[document][range]));
        Ok(Self {
            documents: plan.documents(),
            texts: plan.text_count(),
            effective_texts: clusters.effective_count(),
            unrelated_contexts: contributions.first().map_or(0, |first| first.unrelated_contexts),
            pairing: plan.pairing(),
            correction,
            laws: fit_laws(plan.points(), &contributions, &clusters, &rows, &cluster_rows),
            local_exponents: local_exponents(plan.points(), &contributions, &bootstrap),
            context_curves: curves.collect(),
            consistency: checks(plan, &contributions),
            convergence: convergence(plan, &contributions, &clusters, &cluster_rows, constant_error),
            halves: halves(plan.points(), &contributions, &clusters),
            exponents: exponent_intervals(plan.points(), &contributions, &points, &bootstrap),
            points,
            nll: nll(plan, &whole),
            entropy_rate: EntropyRate::new(plan, &whole, &clusters),
            nll_bins: position_bins(plan.window(), &bin_surprisals, &clusters),
            bin_surprisals,
            surprisals: whole.iter().map(|answer| -sum(answer)).collect(),
            terms: DocumentTerms::new(plan, terms, &whole, correction),
        })
    }
}

impl PointEstimate {
    /// Computes the estimates at the plan's point `index`. `entropy_error` is added in quadrature to the corrected
    /// estimate's error.
    fn new(
        index: usize,
        point: Point,
        contributions: &Contributions,
        pairing: Pairing,
        bootstrap: &Bootstrap<'_>,
        entropy_error: Option<f64>,
    ) -> Self {
        let estimate = |estimator: usize, error: f64| {
            let column = column(index, estimator);
            let interval = bootstrap.interval(CONFIDENCE_LEVEL, |means| Some(means[column]));
            Estimate { value: bootstrap.means()[column], error, interval }
        };
        // The error over clusters: that of the bootstrap's rows.
        let over_clusters = |estimator: usize| {
            let present = contributions.of(estimator).is_some();
            present.then(|| estimate(estimator, bootstrap.error(column(index, estimator))))
        };
        let corrected = contributions.corrected_errors.map(|errors| {
            let corrected = estimate(CORRECTED, errors.get(pairing));
            entropy_error.map_or(corrected, |error| corrected.widened(error))
        });
        let limit = contributions.averaged.as_ref().and_then(Averaged::converged_limit);
        let averaged_limit = over_clusters(AVERAGED_LIMIT).zip(limit);
        Self {
            ratio: point.ratio,
            length: point.length(),
            split: point.split,
            direct: estimate(DIRECT, contributions.direct_errors.get(pairing)),
            pairing_errors: contributions.direct_errors,
            corrected,
            vclub: estimate(VCLUB, bootstrap.error(column(index, VCLUB))),
            averaged: over_clusters(AVERAGED),
            averaged_limit: averaged_limit.map(|(estimate, limit)| estimate.widened(limit.error)),
            info_nce: over_clusters(INFO_NCE),
        }
    }

    /// Returns the estimate of a series; `None` if it was not computed, or if the series holds exact values.
    pub fn get(&self, series: Series) -> Option<Estimate> {
        match series {
            Series::Direct => Some(self.direct),
            Series::Corrected => self.corrected,
            Series::Vclub => Some(self.vclub),
            Series::Averaged => self.averaged,
            Series::AveragedLimit => self.averaged_limit,
            Series::InfoNce => self.info_nce,
            Series::Truth | Series::VclubLimit => None,
        }
    }
}

/// Returns the log-probabilities of each document's whole window.
fn whole<'a>(plan: &Plan, logprobs: &'a [Vec<f32>]) -> Vec<&'a [f32]> {
    let mut whole: Vec<&[f32]> = vec![&[]; plan.documents()];
    for (query, answer) in plan.queries().iter().zip(logprobs) {
        if let PlannedQuery::Whole { document, .. } = *query {
            whole[document] = answer;
        }
    }
    whole
}

/// Returns the mean negative log-likelihood at each position of the window, in nats.
fn nll(plan: &Plan, whole: &[&[f32]]) -> Vec<Estimate> {
    let clusters = Clusters::of(plan);
    let mut means = Vec::with_capacity(plan.window());
    for position in 0..plan.window() {
        let values: Vec<f64> = whole.iter().map(|answer| -f64::from(answer[position])).collect();
        means.push(clusters.estimate(&values));
    }
    means
}

#[cfg(test)]
mod tests;
