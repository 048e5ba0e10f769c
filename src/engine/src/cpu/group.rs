//! Tensor parallelism on the CPU: a thread for each rank, with its part of the model, behind one `Backend`.

use std::sync::Arc;
use std::thread::JoinHandle;

use surprisal_model::Checkpoint;

use super::{CpuBackend, CpuConfig, LoadError};
use crate::backend::{Backend, BackendError, ForwardBatch, Limits, TokenScore};
use crate::communicator::{Communicator, ThreadCommunicator};

type Answer = Result<Vec<TokenScore>, BackendError>;

/// A Llama whose parts are computed with by the ranks of a group.
#[derive(Debug)]
pub struct CpuGroup {
    ranks: Vec<Rank>,
    limits: Limits,
    fingerprint: String,
    device: String,
    usable: bool,
}

/// A rank's thread: what is asked of it, and what it answers.
#[derive(Debug)]
struct Rank {
    batches: Option<flume::Sender<Arc<ForwardBatch>>>,
    answers: flume::Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl CpuGroup {
    /// Loads a checkpoint in `ranks` parts, each by a thread that reads no other's; the threads and the memory of `config` are
    /// divided among them.
    ///
    /// # Errors
    /// As [`CpuBackend::load`].
    pub fn load(checkpoint: &Checkpoint, config: CpuConfig, ranks: usize) -> Result<Self, LoadError> {
        let ranks = ThreadCommunicator::group(ranks.max(1));
        Self::load_over(checkpoint, config, ranks.into_iter().map(|rank| Box::new(rank) as _).collect())
    }

    /// As [`load`](Self::load), over the ranks of any group.
    ///
    /// # Errors
    /// As [`CpuBackend::load`].
    pub fn load_over(
        checkpoint: &Checkpoint,
        config: CpuConfig,
        ranks: Vec<Box<dyn Communicator>>,
    ) -> Result<Self, LoadError> {
        let load = |rank| CpuBackend::load_part(checkpoint, config, Some(rank));
        let parts: Vec<Result<CpuBackend, LoadError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(move || load(rank))).collect();
            let panicked = |_| Err(LoadError::Threads("a rank panicked while it was loaded".to_owned()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        let Some(first) = parts.first() else {
            return Err(LoadError::Threads("a group has no ranks".to_owned()));
        };
        let (limits, fingerprint) = (first.limits(), first.fingerprint().to_owned());
        let device = format!("{} ranks of {}", parts.len(), first.device());
        let ranks = parts.into_iter().enumerate().map(|(rank, part)| Rank::start(rank, part)).collect::<Result<_, _>>();
        let ranks = ranks.map_err(|error: std::io::Error| LoadError::Threads(error.to_string()))?;
        Ok(Self { ranks, limits, fingerprint, device, usable: true })
    }

    /// What the numbers depend on: weights hash, dtype, backend, numerics version, ranks.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The device in words.
    pub fn device(&self) -> String {
        self.device.clone()
    }
}

impl Rank {
    fn start(rank: usize, mut part: CpuBackend) -> std::io::Result<Self> {
        let (batches, asked) = flume::unbounded::<Arc<ForwardBatch>>();
        let (answer, answers) = flume::unbounded();
        let work = move || {
            for batch in asked {
                if answer.send(part.forward(&batch)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("surprisal-rank-{rank}")).spawn(work)?;
        Ok(Self { batches: Some(batches), answers, thread: Some(thread) })
    }
}

impl Backend for CpuGroup {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Answer {
        let batch = Arc::new(batch.clone());
        for rank in &self.ranks {
            // A rank that is gone is found when its answer is missing.
            let _ = rank.batches.as_ref().map(|batches| batches.send(Arc::clone(&batch)));
        }
        let size = self.ranks.len();
        let answers: Vec<Result<Answer, _>> = self.ranks.iter().map(|rank| rank.answers.recv()).collect();
        let dead = answers.iter().position(Result::is_err);
        let gone = dead.map(|rank| BackendError(format!("rank {rank} of {size} died: the model is loaded anew")));
        let answer = answers.into_iter().flatten().reduce(|first, other| other.and(first));
        let answer = match gone {
            Some(error) => Err(error),
            None => answer.unwrap_or_else(|| Ok(Vec::new())),
        };
        // Ranks do not fail but by losing each other.
        self.usable &= answer.is_ok();
        answer
    }

    fn is_usable(&self) -> bool {
        self.usable
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        self.ranks.iter_mut().for_each(|rank| rank.batches = None);
        for rank in &mut self.ranks {
            let _ = rank.thread.take().map(JoinHandle::join);
        }
    }
}
