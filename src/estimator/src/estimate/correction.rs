//! The n-gram correction.

use crate::error::Error;
use crate::estimate::terms::Terms;
use crate::plan::Plan;
use crate::statistics::NgramEntropy;

/// The n-gram correction of the direct estimator's marginal term.
///
/// After BOS, a model treats the first tokens of `y` as the beginning of a text, but `y` comes from the middle of one.
/// So the correction replaces `ln q`, the model's log-probability of the first `n` tokens, by
/// `weight · (-H_n) + (1 - weight) · ln q`, where `H_n` is the entropy of the corpus's n-grams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// The n-gram entropy `H_n`; the L2M paper's scripts use n = 2.
    pub entropy: NgramEntropy,
    /// The weight of the entropy, from 0 to 1; 0.8 in the L2M paper's scripts.
    pub weight: f64,
}

impl Correction {
    /// The weight in the L2M paper's scripts.
    pub const PAPER_WEIGHT: f64 = 0.8;

    /// Creates a correction with [`PAPER_WEIGHT`](Self::PAPER_WEIGHT).
    pub fn new(entropy: NgramEntropy) -> Self {
        Self { entropy, weight: Self::PAPER_WEIGHT }
    }

    /// Checks that the plan's shortest `y` has at least `n` tokens, and that the weight is from 0 to 1.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), Error> {
        let smallest = plan.points().iter().map(|point| point.length() - point.split).min().unwrap_or_default();
        let n = self.entropy.n;
        if n > smallest {
            let limit = format!("at most {smallest}, the length of the shortest y");
            return Err(Error::invalid("n-gram length", n, limit));
        }
        if !(0.0..=1.0).contains(&self.weight) {
            return Err(Error::invalid("correction weight", self.weight, "from 0 to 1"));
        }
        Ok(())
    }

    /// Returns the corrected marginal terms of all documents, in nats.
    pub(crate) fn marginal(&self, terms: &Terms) -> Vec<f64> {
        let replace = |(marginal, head): (&f64, &f64)| marginal - self.weight * (self.entropy.nats + head);
        terms.marginal.iter().zip(&terms.head).map(replace).collect()
    }
}
