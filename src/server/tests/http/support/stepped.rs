//! The real engine over a backend that a test steps pass by pass.

use std::sync::{Arc, Mutex, mpsc};

use surprisal_engine::{Backend, BackendError, Engine, ForwardBatch, Limits, SchedulerConfig, TokenChoice, TokenScore};

use super::VOCABULARY;

/// The length of a query, in tokens: half of a pass's token budget.
pub(crate) const LENGTH: usize = 32;

/// The tokens of each pass.
pub(crate) type Passes = Arc<Mutex<Vec<Vec<u32>>>>;

/// A backend that runs one pass per received step, and runs freely once the sender is dropped.
pub(crate) struct SteppedBackend {
    steps: mpsc::Receiver<()>,
    passes: Passes,
}

impl Backend for SteppedBackend {
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

/// Returns an engine whose passes hold two queries of [`LENGTH`] tokens, the sender of steps, and the passes.
pub(crate) fn stepped_engine() -> (Engine, mpsc::Sender<()>, Passes) {
    let (step, steps) = mpsc::channel();
    let passes = Passes::default();
    let backend = SteppedBackend { steps, passes: Arc::clone(&passes) };
    let config = SchedulerConfig { token_budget: 2 * LENGTH, max_running: 8 };
    let name = || "stepped".to_owned();
    (Engine::start(name(), name(), name(), backend, config).unwrap(), step, passes)
}
