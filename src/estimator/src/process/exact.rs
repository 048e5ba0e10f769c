//! A source that answers with the probabilities of a process.

use crate::error::Error;
use crate::process::Process;
use crate::process::santa_fe::SantaFe;
use crate::source::{LogprobSource, Model, ScoreQuery};

/// A [`LogprobSource`] that computes the probabilities of a [`Process`] in memory, without a server or a model file.
#[derive(Clone, Debug)]
pub struct ExactSource<P = SantaFe> {
    process: P,
    model: Model,
}

impl<P: Process> ExactSource<P> {
    /// Creates a source that answers with the probabilities of `process`.
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
