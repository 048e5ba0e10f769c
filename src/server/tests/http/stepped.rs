//! The real engine over a backend that a test lets run pass by pass.

use std::sync::{Arc, Mutex, mpsc};

use surprisal_engine::{Backend, BackendError, Engine, ForwardBatch, Limits, SchedulerConfig, TokenChoice, TokenScore};

use crate::support::VOCABULARY;

/// Half of what a pass holds, in tokens.
pub(crate) const LENGTH: usize = 32;

/// The tokens of each pass.
pub(crate) type Passes = Arc<Mutex<Vec<Vec<u32>>>>;

/// Runs a pass each time it is told to, and every one once nobody is there to tell it.
pub(crate) struct Stepped {
    steps: mpsc::Receiver<()>,
    passes: Passes,
}

impl Backend for Stepped {
    fn limits(&self) -> Limits {
        Limits { vocab_size: VOCABULARY, max_length: 64, blocks: 600 }
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        let _ = self.steps.recv();
        self.passes.lock().unwrap().push(batch.tokens.clone());
        let given = |choice| if let TokenChoice::Given(token) = choice { token } else { 0 };
        let score = |token: u32| TokenScore { token, logprob: -(token as f32) / 256.0, position: None };
        Ok(batch.scores.iter().map(|row| score(given(row.choice))).collect())
    }
}

/// An engine whose passes hold two queries of [`LENGTH`] tokens.
pub(crate) fn engine() -> (Engine, mpsc::Sender<()>, Passes) {
    let (step, steps) = mpsc::channel();
    let passes = Passes::default();
    let backend = Stepped { steps, passes: Arc::clone(&passes) };
    let config = SchedulerConfig { token_budget: 2 * LENGTH, max_running: 8 };
    let words = || "stepped".to_owned();
    (Engine::start(words(), words(), words(), backend, config).unwrap(), step, passes)
}
