//! The estimators: from a plan's log-probabilities to mutual information at each point, in nats.
//!
//! Start with [`Estimates::new`]. `terms` sums log-probabilities to the terms of the estimators, `contributions` combines them to one
//! value for each document and estimator, [`Bootstrap`] resamples those for confidence intervals, and `exponents` for the intervals of
//! power laws. A [`Series`] names an estimator.

mod bootstrap;
mod contributions;
mod correction;
mod exponents;
mod series;
mod terms;

pub use bootstrap::Bootstrap;
pub use correction::Correction;
pub use exponents::ExponentInterval;
pub use series::Series;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::estimate::bootstrap::CONFIDENCE_LEVEL;
use crate::estimate::contributions::{CORRECTED, Contributions, DIRECT, VCLUB, bootstrap_rows, column, pairing_errors};
use crate::estimate::exponents::exponent_intervals;
use crate::estimate::terms::{collect, sum};
use crate::plan::{Pairing, Plan, PlannedQuery, Point};
use crate::value::Estimate;

/// The estimates at one point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointEstimate {
    /// `L/ℓ`.
    pub ratio: usize,
    /// `L`: tokens in `x` and `y` together.
    pub length: usize,
    /// `ℓ`: tokens in `x`.
    pub split: usize,
    /// `mean[ln q(y|x) - ln q(y)]`, with the marginal term that the plan's [`Pairing`] says.
    pub direct: Estimate,
    /// The direct estimate's standard error with either marginal term. The means are one and the same.
    pub pairing_errors: PairingErrors,
    /// The direct estimate with the n-gram [`Correction`], where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Estimate>,
    /// `mean[ln q(y_i|x_i) - mean_j ln q(y_i|x_j)]`, over the contexts `j` of document `i`.
    pub vclub: Estimate,
}

/// Standard errors of one mean, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairingErrors {
    /// With the same `y` in both terms ([`Pairing::Same`]).
    pub same: f64,
    /// With the partner's `y` in the marginal term ([`Pairing::Crossed`]). It counts as if the terms were independent, so it
    /// overstates how far the mean, which is that of the same `y`, may be off.
    pub crossed: f64,
}

/// The estimates of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimates {
    /// How many documents.
    pub documents: usize,
    /// Which marginal stood beside which conditional term.
    pub pairing: Pairing,
    /// The correction, if there was one.
    pub correction: Option<Correction>,
    /// One for each of the plan's points: by ratio, then shortest first.
    pub points: Vec<PointEstimate>,
    /// Those of the fits that have one.
    pub exponents: Vec<ExponentInterval>,
    /// `nll[t]`: the mean of `-ln q(x_t | x_0 .. x_(t-1))` over documents.
    pub nll: Vec<Estimate>,
    /// `-ln q` of each document's whole window.
    pub surprisals: Vec<f64>,
}

impl Estimates {
    /// Computes estimates from `logprobs`, the target tokens' log-probabilities in nats of each of the plan's queries.
    ///
    /// The n-gram entropy's error is added in quadrature to the corrected estimate of the smallest split, as in the paper's
    /// scripts; it is common to all splits and is not lessened by averaging over documents.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the answers do not fit the plan's queries, a correction's n-gram is longer than the smallest
    /// `y` or its weight is outside 0..=1; [`Error::NotFinite`] for a log-probability that is not finite.
    pub fn new(plan: &Plan, logprobs: &[Vec<f32>], correction: Option<Correction>) -> Result<Self, Error> {
        if let Some(correction) = &correction {
            correction.check(plan)?;
        }
        let ngram = correction.map_or(0, |correction| correction.entropy.n);
        let terms = collect(plan, logprobs, ngram)?;
        let contributions: Vec<_> = terms.iter().map(|terms| Contributions::new(terms, plan, correction)).collect();
        let rows = bootstrap_rows(&contributions, plan.documents());
        let bootstrap = Bootstrap::new(&rows, plan.design().resamples, plan.design().seed);
        let mut points = Vec::with_capacity(terms.len());
        for (index, (&point, contributions)) in plan.points().iter().zip(&contributions).enumerate() {
            // It is common to all splits; the smallest shows it.
            let entropy_error = correction.filter(|_| point.split == plan.splits()[0]).map(|c| c.entropy.error);
            let errors = pairing_errors(&terms[index], plan);
            points.push(PointEstimate::new(index, point, contributions, &bootstrap, errors, entropy_error));
        }
        let whole = whole(plan, logprobs);
        Ok(Self {
            documents: plan.documents(),
            pairing: plan.pairing(),
            correction,
            exponents: exponent_intervals(plan.points(), &points, &bootstrap),
            points,
            nll: nll(plan, &whole),
            surprisals: whole.iter().map(|answer| -sum(answer)).collect(),
        })
    }

    /// The Kullback-Leibler divergence of the model from the process that made the documents, over a window:
    /// the mean of `ln p(x) - ln q(x)`, `ln_p` being the process's own log-probability of each document's window.
    ///
    /// # Panics
    /// If there are not as many as documents.
    pub fn divergence(&self, ln_p: &[f64]) -> Estimate {
        assert_eq!(ln_p.len(), self.surprisals.len(), "one for each document");
        let differences: Vec<f64> = ln_p.iter().zip(&self.surprisals).map(|(p, surprisal)| p + surprisal).collect();
        Estimate::of(&differences)
    }
}

impl PointEstimate {
    /// Computes the estimates at the plan's point number `index`. `entropy_error` is added to the corrected estimate's error.
    fn new(
        index: usize,
        point: Point,
        contributions: &Contributions,
        bootstrap: &Bootstrap<'_>,
        pairing_errors: PairingErrors,
        entropy_error: Option<f64>,
    ) -> Self {
        let estimate = |estimator: usize, values: &[f64]| {
            let column = column(index, estimator);
            let interval = bootstrap.interval(CONFIDENCE_LEVEL, |means| Some(means[column]));
            Estimate { interval, ..Estimate::of(values) }
        };
        let corrected = contributions.corrected.as_ref().map(|values| {
            let corrected = estimate(CORRECTED, values);
            entropy_error.map_or(corrected, |error| corrected.widened(error))
        });
        Self {
            ratio: point.ratio,
            length: point.length(),
            split: point.split,
            direct: estimate(DIRECT, &contributions.direct),
            pairing_errors,
            corrected,
            vclub: estimate(VCLUB, &contributions.vclub),
        }
    }

    /// Returns the value of an estimator; `None` if it was not computed, or is a truth rather than an estimate.
    pub fn get(&self, series: Series) -> Option<Estimate> {
        match series {
            Series::Direct => Some(self.direct),
            Series::Corrected => self.corrected,
            Series::Vclub => Some(self.vclub),
            Series::Truth | Series::VclubLimit => None,
        }
    }
}

/// Returns the answers about whole windows, by document.
fn whole<'a>(plan: &Plan, logprobs: &'a [Vec<f32>]) -> Vec<&'a [f32]> {
    let mut whole: Vec<&[f32]> = vec![&[]; plan.documents()];
    for (query, answer) in plan.queries().iter().zip(logprobs) {
        if let PlannedQuery::Whole { document, .. } = *query {
            whole[document] = answer;
        }
    }
    whole
}

/// Returns the mean negative log-likelihood at each position of the window.
fn nll(plan: &Plan, whole: &[&[f32]]) -> Vec<Estimate> {
    let mut means = Vec::with_capacity(plan.window());
    for position in 0..plan.window() {
        let values: Vec<f64> = whole.iter().map(|answer| -f64::from(answer[position])).collect();
        means.push(Estimate::of(&values));
    }
    means
}

#[cfg(test)]
mod tests;
