//! Processes whose mutual information is known exactly, and the source that answers with their own probabilities.

use rand::Rng;

use crate::{Error, LogprobSource, Model, SantaFe, ScoreQuery};

/// A stationary process that can be sampled, and knows every answer; all values in nats.
pub trait Process: Sync {
    /// A token id, or a number.
    type Symbol: Clone + Send + Sync;

    /// What a report calls it.
    fn name(&self) -> String;

    /// All that its answers depend on.
    fn fingerprint(&self) -> String;

    /// The longest sequence that it samples and scores.
    fn longest(&self) -> usize {
        usize::MAX - 1
    }

    /// A document of `length` symbols.
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

impl Process for SantaFe {
    type Symbol = u32;

    fn name(&self) -> String {
        format!("Santa Fe oracle, {} symbols", self.probabilities().len())
    }

    fn fingerprint(&self) -> String {
        let (symbols, exponent, doubt) = (self.probabilities().len(), self.exponent(), self.doubt());
        format!("santa fe, f64, {symbols} symbols, exponent {exponent}, doubt {doubt}")
    }

    fn sample(&self, length: usize, rng: &mut impl Rng) -> Vec<u32> {
        SantaFe::sample(self, length, rng)
    }

    fn logprobs(&self, history: &[u32], symbols: &[u32]) -> Result<Vec<f64>, Error> {
        SantaFe::logprobs(self, history, symbols)
    }

    fn log_probability(&self, tokens: &[u32]) -> Result<f64, Error> {
        SantaFe::log_probability(self, tokens)
    }

    fn mutual_information(&self, m: usize, n: usize) -> f64 {
        SantaFe::mutual_information(self, m, n)
    }

    fn direct_limit(&self, m: usize, n: usize) -> f64 {
        SantaFe::direct_limit(self, m, n)
    }

    fn vclub_limit(&self, m: usize, n: usize) -> f64 {
        SantaFe::vclub_limit(self, m, n)
    }
}

/// A process's own probabilities, in this process: no server, no model file.
#[derive(Clone, Debug)]
pub struct ExactSource<P = SantaFe> {
    process: P,
    model: Model,
}

impl<P: Process> ExactSource<P> {
    /// Answers with the probabilities of `process`.
    pub fn new(process: P) -> Self {
        let model =
            Model { name: process.name(), fingerprint: process.fingerprint(), max_length: process.longest() + 1 };
        Self { process, model }
    }
}

impl<P: Process> LogprobSource<P::Symbol> for ExactSource<P> {
    fn model(&self) -> &Model {
        &self.model
    }

    async fn logprobs(&self, queries: Vec<ScoreQuery<P::Symbol>>) -> Result<Vec<Vec<f32>>, Error> {
        let score = |query: &ScoreQuery<P::Symbol>| {
            let exact = self.process.logprobs(&query.context, &query.target)?;
            Ok(exact.into_iter().map(|logprob| logprob as f32).collect())
        };
        queries.iter().map(score).collect()
    }
}
