//! Processes whose mutual information is known in closed form: the ground truth for the estimators.
//!
//! Start with the [`Process`] trait below. [`SantaFe`] is a process of tokens, [`Gaussian`] one of real numbers; [`ExactSource`] answers
//! queries with the probabilities of either.

mod exact;
mod gaussian;
mod santa_fe;

pub use exact::ExactSource;
pub use gaussian::Gaussian;
pub use santa_fe::SantaFe;

use rand::Rng;

use crate::error::Error;

/// A stationary process that can be sampled, and knows every answer; all values in nats.
pub trait Process: Sync {
    /// A token id, or a number.
    type Symbol: Clone + Send + Sync;

    /// Returns its name in reports.
    fn name(&self) -> String;

    /// Returns all that its log-probabilities depend on.
    fn fingerprint(&self) -> String;

    /// Returns the length of the longest sequence that it samples and scores.
    fn longest(&self) -> usize {
        usize::MAX - 1
    }

    /// Samples a document of `length` symbols.
    fn sample(&self, length: usize, rng: &mut impl Rng) -> Vec<Self::Symbol>;

    /// `ln q(symbols[t] | history, symbols[..t])` for each `t`: log-probabilities, or log-densities.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TokenOutOfRange`] for what the process cannot hold.
    fn logprobs(&self, history: &[Self::Symbol], symbols: &[Self::Symbol]) -> Result<Vec<f64>, Error>;

    /// `ln p(symbols)` of a document by the process itself, whatever its oracle doubts; negative infinity for what it never makes.
    ///
    /// # Errors
    /// As [`logprobs`](Self::logprobs).
    fn log_probability(&self, symbols: &[Self::Symbol]) -> Result<f64, Error>;

    /// The mutual information of `m` symbols and the `n` that follow.
    fn mutual_information(&self, m: usize, n: usize) -> f64;

    /// What the direct estimator converges to for `|x| = m`, `|y| = n`.
    fn direct_limit(&self, m: usize, n: usize) -> f64;

    /// What vCLUB converges to for `|x| = m`, `|y| = n`.
    fn vclub_limit(&self, m: usize, n: usize) -> f64;
}
