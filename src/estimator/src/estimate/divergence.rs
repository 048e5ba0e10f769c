//! The Kullback-Leibler divergence of a model from the process that generated the documents.

use crate::estimate::Estimates;
use crate::estimate::clusters::Clusters;
use crate::estimate::nll_bins::{PositionBin, document_bins, position_bins};
use crate::value::Estimate;

/// The Kullback-Leibler divergence of a model `q` from the process `p` that generated the documents, in nats.
///
/// The means run over documents, which are samples of `p`, so they converge to the divergence. A divergence is not
/// negative, but a single `ln p - ln q` is if the model gives the token that occurred more than its probability. The mean
/// over few documents can therefore be negative, too.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// The mean of `ln p(x) - ln q(x)` over whole windows.
    pub total: Estimate,
    /// The mean of `ln p(x_t | x_0 .. x_(t-1)) - ln q(x_t | x_0 .. x_(t-1))` over ranges of positions, those of
    /// [`Estimates::nll_bins`]. The sum of these means, each times the number of its positions, is the total.
    pub bins: Vec<PositionBin>,
}

impl Estimates {
    /// Estimates the divergence of the model from the process that generated the documents. `ln_p` has, for each token of
    /// each document's window, the process's own log-probability given the tokens before it, in nats.
    ///
    /// Errors are standard errors over texts (over documents, if there is one text).
    ///
    /// # Panics
    /// If `ln_p` does not have one log-probability for each token of each document.
    pub fn divergence(&self, ln_p: &[Vec<f64>]) -> Divergence {
        let window = self.nll.len();
        let is_whole = ln_p.len() == self.documents && ln_p.iter().all(|tokens| tokens.len() == window);
        assert!(is_whole, "expected {window} log-probabilities for each of {} documents", self.documents);
        let total = |(document, surprisal): (usize, &f64)| ln_p[document].iter().sum::<f64>() + surprisal;
        let totals: Vec<f64> = self.surprisals.iter().enumerate().map(total).collect();
        let mut bins = document_bins(window, self.documents, |document, range| ln_p[document][range].iter().sum());
        for (differences, surprisals) in bins.iter_mut().zip(&self.bin_surprisals) {
            differences.iter_mut().zip(surprisals).for_each(|(difference, surprisal)| *difference += surprisal);
        }
        let clusters = Clusters::of_texts(self.terms.texts.iter().copied());
        Divergence { total: clusters.estimate(&totals), bins: position_bins(window, &bins, &clusters) }
    }
}
