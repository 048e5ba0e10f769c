//! The design of a plan, and its checks.

use crate::error::Error;
use crate::plan::Pairing;

/// The L2M paper's splits at the ratio `L/ℓ = 2`: 2, 4, ..., 512.
pub const PAPER_SPLITS: [usize; 9] = [2, 4, 8, 16, 32, 64, 128, 256, 512];

/// The maximum window length in tokens; a longer window is surely a mistake.
pub(crate) const MAX_WINDOW: usize = 1 << 25;

/// The design of a plan: everything that is independent of the documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Design {
    /// The splits `ℓ`, the numbers of tokens in `x`, in increasing order.
    pub splits: Vec<usize>,
    /// The ratios `L/ℓ`, in increasing order, each at least 2: `y` has `(ratio - 1) ℓ` tokens.
    pub ratios: Vec<usize>,
    /// The number of tokens available per document. Points with a longer `L` are omitted.
    pub window: usize,
    /// The number of negatives for vCLUB. Each `y` is scored once after each of its negatives, which are contexts from
    /// other documents. Contexts from other texts are used first.
    pub negatives: usize,
    /// The splits at which the `y` of two unrelated documents are also scored together, at the smallest ratio, for the
    /// test of additivity.
    pub additivity: Vec<usize>,
    /// The pairing of the direct estimate's marginal terms.
    pub pairing: Pairing,
    /// The seed for choosing partners and for the bootstrap.
    pub seed: u64,
    /// The number of bootstrap resamples for confidence intervals; 0 for no intervals.
    pub resamples: usize,
}

impl Default for Design {
    /// Returns a design with the L2M paper's splits at `L/ℓ = 2`, one negative and 1000 resamples.
    fn default() -> Self {
        Self {
            splits: PAPER_SPLITS.to_vec(),
            ratios: vec![2],
            window: MAX_WINDOW,
            negatives: 1,
            additivity: Vec::new(),
            pairing: Pairing::Same,
            seed: 0,
            resamples: 1000,
        }
    }
}

impl Design {
    /// Checks that the design fits documents from these texts.
    pub(crate) fn check(&self, texts: &[usize]) -> Result<(), Error> {
        let documents = texts.len();
        check_increasing("splits", &self.splits, 1)?;
        check_increasing("ratios", &self.ratios, 2)?;
        let (smallest, longest) = (self.ratios[0], self.window.min(MAX_WINDOW));
        if let Some(split) = self.splits.iter().find(|&&split| split.saturating_mul(smallest) > longest) {
            let limit = format!("at most {}, for L/ℓ = {smallest} in a window of {longest} tokens", longest / smallest);
            return Err(Error::invalid("splits", split, limit));
        }
        if !(1..documents).contains(&self.negatives) {
            let limit = format!("from 1 to {}, for {documents} documents", documents - 1);
            return Err(Error::invalid("negatives", self.negatives, limit));
        }
        self.check_additivity(texts)
    }

    /// Checks the splits of the test of additivity, and that there are two independent pairs of texts.
    fn check_additivity(&self, texts: &[usize]) -> Result<(), Error> {
        if let Some(split) = self.additivity.iter().find(|split| !self.splits.contains(split)) {
            return Err(Error::invalid("additivity", split, format!("one of the splits {:?}", self.splits)));
        }
        let texts = texts.last().map_or(0, |last| last + 1);
        if !self.additivity.is_empty() && texts < 4 {
            let limit = format!(
                "empty for {texts} texts, because the test needs at least 4 (pieces of one text count as one text)"
            );
            return Err(Error::invalid("additivity", format!("{:?}", self.additivity), limit));
        }
        if !self.additivity.is_empty() {
            check_increasing("additivity", &self.additivity, 1)?;
        }
        Ok(())
    }
}

/// Checks that `numbers` is not empty, that the numbers are increasing, and that none is below `least`.
fn check_increasing(field: &'static str, numbers: &[usize], least: usize) -> Result<(), Error> {
    let is_increasing = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    if is_increasing && numbers.first().is_some_and(|&first| first >= least) {
        return Ok(());
    }
    let limit = format!("one or more increasing numbers, each at least {least}");
    Err(Error::invalid(field, format!("{numbers:?}"), limit))
}
