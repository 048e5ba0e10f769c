//! The estimators: from a plan's log-probabilities to mutual information at each split, in nats.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, NgramEntropy, Pairing, Plan, Step};

/// A mean and its standard error (sample standard deviation with ddof 1, over `sqrt(N)`), in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// The standard error.
    pub error: f64,
}

impl Estimate {
    /// Of at least two values.
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let value = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|v| (v - value) * (v - value)).sum();
        Self { value, error: (squares / (count - 1.0) / count).sqrt() }
    }
}

/// With as many decimals as give the error two digits: `5.50 ± 0.71`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.error > 0.0 { (1.0 - self.error.log10().floor()).clamp(0.0, 4.0) as usize } else { 4 };
        write!(f, "{:.decimals$} ± {:.decimals$}", self.value, self.error)
    }
}

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

/// The estimates at one split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitEstimate {
    /// `L`: tokens in `x` and `y` together.
    pub length: usize,
    /// `ℓ`: tokens in `x`.
    pub split: usize,
    /// `mean[ln q(y|x) - ln q(y)]`.
    pub direct: Estimate,
    /// The same with the n-gram [`Correction`], where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Estimate>,
    /// `mean[ln q(y_i|x_i) - ln q(y_i|x_j)]`, `j` the partner of `i`.
    pub vclub: Estimate,
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
    /// One for each split, shortest first.
    pub splits: Vec<SplitEstimate>,
}

/// The sums of log-probabilities at one split, one entry a document, in nats.
struct Terms {
    /// `ln q(y_i | x_i)`.
    conditional: Vec<f64>,
    /// `ln q(y_i)`.
    marginal: Vec<f64>,
    /// The part of the first n tokens in that.
    head: Vec<f64>,
    /// `ln q(y_i | x_j)`.
    crossed: Vec<f64>,
}

impl Estimates {
    /// Estimates from `logprobs`, the target tokens' log-probabilities in nats of each of the plan's steps.
    ///
    /// The n-gram entropy's error is added in quadrature to the corrected estimate of the smallest split, as in the paper's
    /// scripts; it is common to all splits and is not lessened by averaging over documents.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the answers do not fit the plan's steps, a correction's n-gram is longer than the smallest
    /// split or its weight is outside 0..=1; [`Error::NotFinite`] for a log-probability that is not finite.
    pub fn new(plan: &Plan, logprobs: &[Vec<f32>], correction: Option<Correction>) -> Result<Self, Error> {
        if let Some(correction) = &correction {
            check(correction, plan)?;
        }
        let ngram = correction.map_or(0, |correction| correction.entropy.n);
        let terms = collect(plan, logprobs, ngram)?;
        let estimate = |(index, (&split, terms)): (usize, (&usize, &Terms))| {
            let corrected = correction.map(|correction| {
                let mut estimate = terms.corrected(plan, &correction);
                if index == 0 {
                    estimate.error = estimate.error.hypot(correction.entropy.error);
                }
                estimate
            });
            SplitEstimate {
                length: 2 * split,
                split,
                direct: terms.direct(plan, &terms.marginal),
                corrected,
                vclub: Estimate::of(&differences(&terms.conditional, &terms.crossed)),
            }
        };
        Ok(Self {
            documents: plan.documents(),
            pairing: plan.pairing(),
            correction,
            splits: plan.splits().iter().zip(&terms).enumerate().map(estimate).collect(),
        })
    }
}

impl Terms {
    fn direct(&self, plan: &Plan, marginal: &[f64]) -> Estimate {
        match plan.pairing() {
            Pairing::Same => Estimate::of(&differences(&self.conditional, marginal)),
            Pairing::Crossed => {
                let partners: Vec<f64> = plan.partners().iter().map(|&j| marginal[j]).collect();
                Estimate::of(&differences(&self.conditional, &partners))
            }
        }
    }

    fn corrected(&self, plan: &Plan, correction: &Correction) -> Estimate {
        let replace = |(marginal, head): (&f64, &f64)| marginal - correction.weight * (correction.entropy.nats + head);
        let marginal: Vec<f64> = self.marginal.iter().zip(&self.head).map(replace).collect();
        self.direct(plan, &marginal)
    }
}

fn differences(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left - right).collect()
}

fn check(correction: &Correction, plan: &Plan) -> Result<(), Error> {
    let (n, smallest) = (correction.entropy.n, plan.splits()[0]);
    if n > smallest {
        return Err(Error::invalid("n-gram length", n, format!("at most the smallest split, {smallest}")));
    }
    if !(0.0..=1.0).contains(&correction.weight) {
        return Err(Error::invalid("correction weight", correction.weight, "in 0..=1"));
    }
    Ok(())
}

/// Sorts the answers into terms by split and document.
fn collect(plan: &Plan, logprobs: &[Vec<f32>], ngram: usize) -> Result<Vec<Terms>, Error> {
    if logprobs.len() != plan.steps().len() {
        let limit = format!("one for each of the plan's {} steps", plan.steps().len());
        return Err(Error::invalid("number of answers", logprobs.len(), limit));
    }
    let zeros = || vec![0.0; plan.documents()];
    let empty = |_| Terms { conditional: zeros(), marginal: zeros(), head: zeros(), crossed: zeros() };
    let mut terms: Vec<Terms> = plan.splits().iter().map(empty).collect();
    let place = |split| plan.splits().partition_point(|&other| other < split);
    for (step, answer) in plan.steps().iter().zip(logprobs) {
        validate(plan, step, answer)?;
        match *step {
            Step::Whole { document } => {
                for (terms, &split) in terms.iter_mut().zip(plan.splits()) {
                    terms.conditional[document] = sum(&answer[split..2 * split]);
                }
            }
            Step::Marginal { document, split } => {
                let terms = &mut terms[place(split)];
                terms.marginal[document] = sum(answer);
                terms.head[document] = sum(&answer[..ngram]);
            }
            Step::Crossed { y, split, .. } => terms[place(split)].crossed[y] = sum(answer),
        }
    }
    Ok(terms)
}

fn validate(plan: &Plan, step: &Step, answer: &[f32]) -> Result<(), Error> {
    let expected = step.target_length(plan.window());
    if answer.len() != expected {
        let limit = format!("{expected} for {step}");
        return Err(Error::invalid("number of log-probabilities", answer.len(), limit));
    }
    match answer.iter().position(|logprob| !logprob.is_finite()) {
        None => Ok(()),
        Some(position) => Err(Error::NotFinite { query: step.to_string(), position, value: answer[position] }),
    }
}

/// f32 values added in f64, in order.
fn sum(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three documents at splits 1 and 2, each answer made of a number of its own.
    fn example() -> (Plan, Vec<Vec<f32>>) {
        let plan = Plan::new(3, &[1, 2], Pairing::Same, 0).unwrap();
        let answer = |step: &Step| match *step {
            Step::Whole { document } => {
                let d = document as f32;
                vec![-100.0, -d, -2.0 * d, -3.0 * d]
            }
            Step::Marginal { document, split } => vec![-10.0 * document as f32 - 1.0; split],
            Step::Crossed { x, y, split } => vec![-((5 * x + 7 * y) as f32); split],
        };
        let answers = plan.steps().iter().map(answer).collect();
        (plan, answers)
    }

    fn entropy(n: usize) -> NgramEntropy {
        NgramEntropy { n, nats: 3.0, error: 0.5, total: 10, distinct: 5 }
    }

    fn close(estimate: Estimate, value: f64, error: f64) {
        assert!((estimate.value - value).abs() < 1e-9, "{estimate:?}, not {value}");
        assert!((estimate.error - error).abs() < 1e-9, "{estimate:?}, not {error}");
    }

    #[test]
    fn estimates_are_the_means_they_say() {
        let (plan, answers) = example();
        let estimates = Estimates::new(&plan, &answers, Some(Correction::new(entropy(1)))).unwrap();
        let [first, second] = estimates.splits[..] else { panic!() };
        assert_eq!((first.length, first.split, second.length), (2, 1, 4));
        let thirds = 3.0_f64.sqrt();
        // Split 1: -d + 10 d + 1 for d = 0, 1, 2.
        close(first.direct, 10.0, 9.0 / thirds);
        // Split 2: -5 d + 2 (10 d + 1).
        close(second.direct, 17.0, 15.0 / thirds);
        // Each marginal loses 4/5 of (3 + head), head = -10 d - 1: the direct one gains 4/5 (2 - 10 d).
        close(first.corrected.unwrap(), 10.0 + 0.8 * -8.0, (1.0 / thirds).hypot(0.5));
        close(second.corrected.unwrap(), 17.0 + 0.8 * -8.0, 7.0 / thirds);
        // Split 1: -d + 5 x + 7 y, whose mean over a permutation is 11.
        let (value, partners) = (11.0, plan.partners());
        let terms: Vec<f64> = (0..3).map(|d| 6.0 * d as f64 + 5.0 * partners[d] as f64).collect();
        assert_eq!(first.vclub, Estimate::of(&terms));
        close(first.vclub, value, first.vclub.error);
    }

    #[test]
    fn crossed_pairing_moves_no_mean() {
        let (plan, answers) = example();
        let crossed = Plan::new(3, &[1, 2], Pairing::Crossed, 0).unwrap();
        let same = Estimates::new(&plan, &answers, None).unwrap().splits[1];
        let other = Estimates::new(&crossed, &answers, None).unwrap().splits[1];
        assert!((same.direct.value - other.direct.value).abs() < 1e-9);
        assert!((same.direct.error - other.direct.error).abs() > 1e-3);
        assert_eq!(same.vclub, other.vclub);
        assert_eq!(same.corrected, None);
    }

    #[test]
    fn bad_answers_are_named() {
        let (plan, mut answers) = example();
        let error =
            |answers: &[Vec<f32>], correction| Estimates::new(&plan, answers, correction).unwrap_err().to_string();
        let too_long = error(&answers, Some(Correction::new(entropy(2))));
        assert!(too_long.contains("smallest split, 1"), "{too_long}");
        let missing = error(&answers[1..], None);
        assert!(missing.contains("is 14") && missing.contains("15 steps"), "{missing}");
        answers[0][2] = f32::NEG_INFINITY;
        let infinite = error(&answers, None);
        assert!(infinite.contains("-inf at target token 2"), "{infinite}");
        answers[0].pop();
        assert!(error(&answers, None).contains("4 for document"), "{}", error(&answers, None));
    }

    #[test]
    fn errors_show_two_digits() {
        let show = |value, error| Estimate { value, error }.to_string();
        assert_eq!(show(5.4987, 0.7123), "5.50 ± 0.71");
        assert_eq!(show(15.23, 10.7), "15 ± 11");
        assert_eq!(show(1.0, 0.0), "1.0000 ± 0.0000");
    }
}
