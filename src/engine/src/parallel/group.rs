//! `TensorParallelGroup`: one thread per rank, each with its slice of the model, behind one `Backend`.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::backend::{Backend, BackendError, ForwardBatch, Limits, TokenScore};
use crate::load_error::LoadError;

type BatchResult = Result<Vec<TokenScore>, BackendError>;

/// A rank and its result for a batch; `None` if the rank died.
type RankResult = (usize, Option<BatchResult>);

/// A Llama model divided among the ranks of a group.
#[derive(Debug)]
pub struct TensorParallelGroup {
    ranks: Vec<Rank>,
    /// The channel on which each rank sends one result per batch.
    results: flume::Receiver<RankResult>,
    limits: Limits,
    fingerprint: String,
    device: String,
    usable: bool,
}

/// A rank's thread and the channel that sends it batches.
#[derive(Debug)]
struct Rank {
    batches: Option<flume::Sender<Arc<ForwardBatch>>>,
    thread: Option<JoinHandle<()>>,
}

/// A guard that reports its rank's death if the rank panics.
///
/// It is dropped before the rank's communicator, so the group learns of the rank that died before it learns of the
/// ranks that fail as a consequence.
struct DeathNotice<'a> {
    rank: usize,
    results: &'a flume::Sender<RankResult>,
}

impl Drop for DeathNotice<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody receives the message if the group is being dropped.
            let _ = self.results.send((self.rank, None));
        }
    }
}

impl TensorParallelGroup {
    /// Loads all ranks at once, each on its own thread.
    pub(crate) fn load_ranks<R: Send, B: Send>(
        ranks: Vec<R>,
        load: impl Fn(R) -> Result<B, LoadError> + Sync,
    ) -> Result<Vec<B>, LoadError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(|| load(rank))).collect();
            let panicked = |_| Err(LoadError::Threads("a rank panicked while loading".to_owned()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        })
    }

    /// Starts a thread for each backend, in order of rank. `fingerprint` and `device` are those of the first rank.
    pub(crate) fn start<B: Backend>(
        backends: Vec<B>,
        (fingerprint, device): (String, String),
    ) -> Result<Self, LoadError> {
        let fewest = backends.iter().map(Backend::limits).min_by_key(|limits| limits.blocks);
        let limits = fewest.ok_or_else(|| LoadError::Threads("the group has no ranks".to_owned()))?;
        let device = format!("{} ranks of {device}", backends.len());
        let (sender, results) = flume::unbounded();
        let start = |(rank, backend)| Rank::start(rank, backend, sender.clone());
        let ranks = backends.into_iter().enumerate().map(start).collect::<Result<_, _>>();
        let ranks = ranks.map_err(|error: std::io::Error| LoadError::Threads(error.to_string()))?;
        Ok(Self { ranks, results, limits, fingerprint, device, usable: true })
    }

    /// Returns the fingerprint of everything that the results depend on: weights hash, dtype, backend, numerics version
    /// and, if it matters, the number of ranks.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns a human-readable description of the device.
    pub fn device(&self) -> String {
        self.device.clone()
    }

    /// Waits for the results of all ranks, which are equal. The first error is the cause of the others.
    fn wait(&self) -> BatchResult {
        let size = self.ranks.len();
        let (mut scores, mut cause) = (Vec::new(), None);
        for _ in &self.ranks {
            match self.results.recv() {
                Ok((_, Some(Ok(result)))) => scores = result,
                Ok((rank, Some(Err(error)))) => {
                    cause = cause.or(Some(BackendError(format!("rank {rank} of {size}: {error}"))));
                }
                Ok((rank, None)) => {
                    let died = format!("rank {rank} of {size} died; reloading the model");
                    cause = cause.or(Some(BackendError(died)));
                }
                Err(_) => cause = cause.or(Some(group_lost(size))),
            }
        }
        cause.map_or(Ok(scores), Err)
    }
}

fn group_lost(size: usize) -> BackendError {
    BackendError(format!("the group of {size} ranks is lost; reloading the model"))
}

impl Rank {
    fn start<B: Backend>(rank: usize, mut backend: B, results: flume::Sender<RankResult>) -> std::io::Result<Self> {
        let (batches, receiver) = flume::unbounded::<Arc<ForwardBatch>>();
        let run = move || {
            let _notice = DeathNotice { rank, results: &results };
            for batch in receiver {
                let result = backend.forward(&batch);
                let failed = result.is_err();
                // A rank that fails is out of step with the others, so it ends. Then the ranks that wait for it fail
                // too.
                if results.send((rank, Some(result))).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("surprisal-rank-{rank}")).spawn(run)?;
        Ok(Self { batches: Some(batches), thread: Some(thread) })
    }
}

impl Backend for TensorParallelGroup {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &ForwardBatch) -> BatchResult {
        if !self.usable {
            return Err(group_lost(self.ranks.len()));
        }
        let batch = Arc::new(batch.clone());
        for batches in self.ranks.iter().filter_map(|rank| rank.batches.as_ref()) {
            // If sending fails, the rank has died and has reported it.
            let _ = batches.send(Arc::clone(&batch));
        }
        let result = self.wait();
        self.usable &= result.is_ok();
        result
    }

    fn is_usable(&self) -> bool {
        self.usable
    }
}

impl Drop for TensorParallelGroup {
    fn drop(&mut self) {
        self.ranks.iter_mut().for_each(|rank| rank.batches = None);
        for rank in &mut self.ranks {
            let _ = rank.thread.take().map(JoinHandle::join);
        }
    }
}
