//! The estimators: from a plan's log-probabilities to mutual information at each point, in nats.
//!
//! Start with [`Estimates::new`]. `terms` sorts log-probabilities into the terms of the estimators, [`Bootstrap`] computes confidence
//! intervals, and a [`Series`] names an estimator.

mod bootstrap;
mod series;
mod terms;

pub use bootstrap::Bootstrap;
pub use series::Series;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::estimate::terms::{Terms, collect, sum};
use crate::fit::Method;
use crate::plan::{Pairing, Plan, Point, Step};
use crate::statistics::NgramEntropy;
use crate::value::Estimate;

/// The level of the intervals.
pub(crate) const LEVEL: f64 = 0.95;

/// The n-gram correction of the direct estimator's marginal term.
///
/// A model asked for the first tokens of `y` after BOS believes to stand at the beginning of a text, though `y` comes from
/// the middle of one. So the log-probability of the first `n` tokens is replaced by
/// `weight · (-H_n) + (1 - weight) · (the model's)`, with the entropy of the corpus's n-grams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// `H_n`; the paper's scripts take n = 2.
    pub entropy: NgramEntropy,
    /// How far to trust it, 0 to 1; 4/5 in the paper's scripts.
    pub weight: f64,
}

impl Correction {
    /// The weight of the paper's scripts.
    pub const PAPER_WEIGHT: f64 = 0.8;

    /// With the weight of the paper's scripts.
    pub fn new(entropy: NgramEntropy) -> Self {
        Self { entropy, weight: Self::PAPER_WEIGHT }
    }
}

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

/// The 95 % interval of a fit's exponent: BCa, over documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExponentInterval {
    /// `L/ℓ`.
    pub ratio: usize,
    /// Through what.
    pub series: Series,
    /// How it was fitted.
    pub method: Method,
    /// The interval.
    pub interval: [f64; 2],
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

/// The estimators that a document contributes one value to.
const ESTIMATORS: [Series; 3] = [Series::Direct, Series::Corrected, Series::Vclub];

impl Estimates {
    /// Estimates from `logprobs`, the target tokens' log-probabilities in nats of each of the plan's steps.
    ///
    /// The n-gram entropy's error is added in quadrature to the corrected estimate of the smallest split, as in the paper's
    /// scripts; it is common to all splits and is not lessened by averaging over documents.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the answers do not fit the plan's steps, a correction's n-gram is longer than the smallest
    /// `y` or its weight is outside 0..=1; [`Error::NotFinite`] for a log-probability that is not finite.
    pub fn new(plan: &Plan, logprobs: &[Vec<f32>], correction: Option<Correction>) -> Result<Self, Error> {
        if let Some(correction) = &correction {
            check(correction, plan)?;
        }
        let ngram = correction.map_or(0, |correction| correction.entropy.n);
        let terms = collect(plan, logprobs, ngram)?;
        let values: Vec<Values> = terms.iter().map(|terms| terms.values(plan, correction)).collect();
        let rows = rows(&values, plan.documents());
        let bootstrap = Bootstrap::new(&rows, plan.design().resamples, plan.design().seed);
        let estimate = |index: usize| {
            let (point, values) = (plan.points()[index], &values[index]);
            let interval = |estimator: usize| bootstrap.interval(LEVEL, |means| Some(means[3 * index + estimator]));
            let mut corrected = values.corrected().map(|v| Estimate { interval: interval(1), ..Estimate::of(v) });
            if point.split == plan.splits()[0] {
                let error = correction.map_or(0.0, |correction| correction.entropy.error);
                corrected = corrected.map(|estimate| estimate.widened(error));
            }
            PointEstimate {
                ratio: point.ratio,
                length: point.length(),
                split: point.split,
                direct: Estimate { interval: interval(0), ..Estimate::of(&values.direct) },
                pairing_errors: terms[index].pairing_errors(plan),
                corrected,
                vclub: Estimate { interval: interval(2), ..Estimate::of(&values.vclub) },
            }
        };
        let points: Vec<PointEstimate> = (0..terms.len()).map(estimate).collect();
        let whole = whole(plan, logprobs);
        Ok(Self {
            documents: plan.documents(),
            pairing: plan.pairing(),
            correction,
            exponents: exponents(plan.points(), &points, &bootstrap),
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
    /// The value of an estimator; `None` where it was not asked for, or is known rather than estimated.
    pub fn get(&self, series: Series) -> Option<Estimate> {
        match series {
            Series::Direct => Some(self.direct),
            Series::Corrected => self.corrected,
            Series::Vclub => Some(self.vclub),
            Series::Truth | Series::VclubLimit => None,
        }
    }
}

/// What each document contributes to the estimators at one point.
struct Values {
    direct: Vec<f64>,
    corrected: Option<Vec<f64>>,
    vclub: Vec<f64>,
}

impl Values {
    fn corrected(&self) -> Option<&Vec<f64>> {
        self.corrected.as_ref()
    }
}

impl Terms {
    fn values(&self, plan: &Plan, correction: Option<Correction>) -> Values {
        Values {
            direct: self.direct(plan, plan.pairing(), &self.marginal),
            corrected: correction.map(|correction| self.direct(plan, plan.pairing(), &self.corrected(&correction))),
            vclub: differences(&self.conditional, &self.crossed),
        }
    }

    fn direct(&self, plan: &Plan, pairing: Pairing, marginal: &[f64]) -> Vec<f64> {
        match pairing {
            Pairing::Same => differences(&self.conditional, marginal),
            Pairing::Crossed => {
                let partners: Vec<f64> = plan.partners().iter().map(|&j| marginal[j]).collect();
                differences(&self.conditional, &partners)
            }
        }
    }

    fn pairing_errors(&self, plan: &Plan) -> PairingErrors {
        let error = |pairing| Estimate::of(&self.direct(plan, pairing, &self.marginal)).error;
        PairingErrors { same: error(Pairing::Same), crossed: error(Pairing::Crossed) }
    }

    /// The marginal terms after the correction.
    fn corrected(&self, correction: &Correction) -> Vec<f64> {
        let replace = |(marginal, head): (&f64, &f64)| marginal - correction.weight * (correction.entropy.nats + head);
        self.marginal.iter().zip(&self.head).map(replace).collect()
    }
}

fn differences(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left - right).collect()
}

/// One row a document; at `3 * point + estimator` what it contributes there, 0 without a correction.
fn rows(values: &[Values], documents: usize) -> Vec<Vec<f64>> {
    let cells = |document: usize| {
        let corrected = |values: &Values| values.corrected().map_or(0.0, |corrected| corrected[document]);
        let cell = |values: &Values| [values.direct[document], corrected(values), values.vclub[document]];
        values.iter().flat_map(cell).collect()
    };
    (0..documents).map(cells).collect()
}

/// The intervals of all exponents: each resample is fitted as the estimates are, with their standard errors.
fn exponents(points: &[Point], estimates: &[PointEstimate], bootstrap: &Bootstrap<'_>) -> Vec<ExponentInterval> {
    let mut ratios: Vec<usize> = points.iter().map(|point| point.ratio).collect();
    ratios.dedup();
    let mut exponents = Vec::new();
    for ratio in ratios {
        let of_ratio: Vec<usize> = (0..points.len()).filter(|&index| points[index].ratio == ratio).collect();
        for (place, series) in ESTIMATORS.into_iter().enumerate() {
            for method in Method::ALL {
                let exponent = |means: &[f64]| {
                    let point = |&index: &usize| {
                        let estimate = estimates[index].get(series)?;
                        let length = points[index].length() as f64;
                        Some((length, Estimate::new(means[3 * index + place], estimate.error)))
                    };
                    let resampled: Option<Vec<(f64, Estimate)>> = of_ratio.iter().map(point).collect();
                    Some(method.fit(&resampled?)?.exponent)
                };
                let interval = bootstrap.interval(LEVEL, exponent);
                exponents.extend(interval.map(|interval| ExponentInterval { ratio, series, method, interval }));
            }
        }
    }
    exponents
}

/// The answers about whole windows, by document.
fn whole<'a>(plan: &Plan, logprobs: &'a [Vec<f32>]) -> Vec<&'a [f32]> {
    let mut whole: Vec<&[f32]> = vec![&[]; plan.documents()];
    for (step, answer) in plan.steps().iter().zip(logprobs) {
        if let Step::Whole { document, .. } = *step {
            whole[document] = answer;
        }
    }
    whole
}

/// The negative log-likelihood at each position of the window.
fn nll(plan: &Plan, whole: &[&[f32]]) -> Vec<Estimate> {
    let at = |position: usize| {
        let values: Vec<f64> = whole.iter().map(|answer| -f64::from(answer[position])).collect();
        Estimate::of(&values)
    };
    (0..plan.window()).map(at).collect()
}

fn check(correction: &Correction, plan: &Plan) -> Result<(), Error> {
    let smallest = plan.points().iter().map(|point| point.length() - point.split).min().unwrap_or_default();
    let n = correction.entropy.n;
    if n > smallest {
        return Err(Error::invalid("n-gram length", n, format!("at most the length of the smallest y, {smallest}")));
    }
    if !(0.0..=1.0).contains(&correction.weight) {
        return Err(Error::invalid("correction weight", correction.weight, "in 0..=1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
