//! The n-gram correction.

use crate::error::Error;
use crate::estimate::terms::Terms;
use crate::plan::Plan;
use crate::statistics::NgramEntropy;

/// The n-gram correction of the direct estimator's marginal term.
///
/// After BOS a model takes the first tokens of `y` for the beginning of a text, though `y` comes from the middle of one. So the log-probability of the first `n` tokens is replaced by
/// `weight · (-H_n) + (1 - weight) · (the model's)`, with the entropy of the corpus's n-grams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// `H_n`; the paper's scripts take n = 2.
    pub entropy: NgramEntropy,
    /// The weight of the entropy, 0 to 1; 4/5 in the paper's scripts.
    pub weight: f64,
}

impl Correction {
    /// The weight of the paper's scripts.
    pub const PAPER_WEIGHT: f64 = 0.8;

    /// A correction with the weight of the paper's scripts.
    pub fn new(entropy: NgramEntropy) -> Self {
        Self { entropy, weight: Self::PAPER_WEIGHT }
    }

    /// Checks that the plan's smallest `y` holds an n-gram, and that the weight is one.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), Error> {
        let smallest = plan.points().iter().map(|point| point.length() - point.split).min().unwrap_or_default();
        let n = self.entropy.n;
        if n > smallest {
            let limit = format!("at most the length of the smallest y, {smallest}");
            return Err(Error::invalid("n-gram length", n, limit));
        }
        if !(0.0..=1.0).contains(&self.weight) {
            return Err(Error::invalid("correction weight", self.weight, "in 0..=1"));
        }
        Ok(())
    }

    /// Corrects the marginal terms of all documents.
    pub(crate) fn marginal(&self, terms: &Terms) -> Vec<f64> {
        let replace = |(marginal, head): (&f64, &f64)| marginal - self.weight * (self.entropy.nats + head);
        terms.marginal.iter().zip(&terms.head).map(replace).collect()
    }
}
