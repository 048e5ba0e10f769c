//! Processes with mutual information in closed form: the ground truth for the estimators.
//!
//! Start with the [`Process`] trait. [`SantaFe`] is a process of tokens, [`Gaussian`] a process of real numbers.
//! [`ExactSource`] answers queries with the probabilities of a process.

mod exact;
mod gaussian;
mod santa_fe;

pub use exact::ExactSource;
pub use gaussian::Gaussian;
pub use santa_fe::SantaFe;

use rand::Rng;

use crate::error::Error;

/// A stationary process that can be sampled, and whose probabilities and mutual information are known exactly.
/// Log-probabilities and information are in nats.
pub trait Process: Sync {
    /// The symbol type: a token id, or a real number.
    type Symbol: Clone + Send + Sync;

    /// Returns the name of the process in reports.
    fn name(&self) -> String;

    /// Returns a string that identifies everything that affects the log-probabilities.
    fn fingerprint(&self) -> String;

    /// Returns the length of the longest sequence that the process can sample and score.
    fn longest(&self) -> usize {
        usize::MAX - 1
    }

    /// Samples a document of `length` symbols.
    fn sample(&self, length: usize, rng: &mut impl Rng) -> Vec<Self::Symbol>;

    /// Returns `ln q(symbols[t] | history, symbols[..t])` for each `t`: log-probabilities, or log-densities.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TokenOutOfRange`] for symbols or lengths that the process does not support.
    fn logprobs(&self, history: &[Self::Symbol], symbols: &[Self::Symbol]) -> Result<Vec<f64>, Error>;

    /// Returns `ln p(symbols[t] | symbols[..t])` of a document for each `t` under the process itself, without an oracle's
    /// doubt. Their sum is `ln p(symbols)`, which is negative infinity for a document that the process never generates.
    ///
    /// # Errors
    /// The same as [`logprobs`](Self::logprobs).
    fn log_probabilities(&self, symbols: &[Self::Symbol]) -> Result<Vec<f64>, Error>;

    /// Returns the mutual information between `m` symbols and the `n` symbols that follow.
    fn mutual_information(&self, m: usize, n: usize) -> f64;

    /// Returns the limit of the direct estimator as the number of documents grows, with `|x| = m` and `|y| = n`.
    fn direct_limit(&self, m: usize, n: usize) -> f64;

    /// Returns the limit of vCLUB with independent negatives as the number of documents grows, with `|x| = m` and
    /// `|y| = n`.
    fn vclub_limit(&self, m: usize, n: usize) -> f64;
}
