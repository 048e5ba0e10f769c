//! Tensor parallelism: a thread for each rank, with its part of the model, behind one `Backend`.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::backend::{Backend, BackendError, ForwardBatch, Limits, TokenScore};
use crate::cpu::LoadError;

type Answer = Result<Vec<TokenScore>, BackendError>;

/// A Llama whose parts are computed with by the ranks of a group.
#[derive(Debug)]
pub struct Group {
    ranks: Vec<Rank>,
    /// From all ranks, one each for every batch: which, and what; nothing if it died.
    answers: flume::Receiver<(usize, Option<Answer>)>,
    limits: Limits,
    fingerprint: String,
    device: String,
    usable: bool,
}

/// A rank's thread, and what asks it for a batch.
#[derive(Debug)]
struct Rank {
    batches: Option<flume::Sender<Arc<ForwardBatch>>>,
    thread: Option<JoinHandle<()>>,
}

/// Says that its rank is dead if it is dropped, as it is when the rank panics, before that has let go of its communicator: so the
/// one that died is heard of before those that it took with it.
struct Alarm<'a> {
    rank: usize,
    answers: &'a flume::Sender<(usize, Option<Answer>)>,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody listens to a group that is being dropped.
            let _ = self.answers.send((self.rank, None));
        }
    }
}

impl Group {
    /// Loads all parts at once, each from its rank's end of the group.
    pub(crate) fn load<R: Send, B: Send>(
        ranks: Vec<R>,
        load: impl Fn(R) -> Result<B, LoadError> + Sync,
    ) -> Result<Vec<B>, LoadError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(|| load(rank))).collect();
            let panicked = |_| Err(LoadError::Threads("a rank panicked while it was loaded".to_owned()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        })
    }

    /// Starts a thread for each part, in order of rank. They have the fingerprint and, in words, the device of the first.
    pub(crate) fn start<B: Backend>(parts: Vec<B>, (fingerprint, device): (String, String)) -> Result<Self, LoadError> {
        let fewest = parts.iter().map(Backend::limits).min_by_key(|limits| limits.blocks);
        let limits = fewest.ok_or_else(|| LoadError::Threads("a group has no ranks".to_owned()))?;
        let device = format!("{} ranks of {device}", parts.len());
        let (answer, answers) = flume::unbounded();
        let start = |(rank, part)| Rank::start(rank, part, answer.clone());
        let ranks = parts.into_iter().enumerate().map(start).collect::<Result<_, _>>();
        let ranks = ranks.map_err(|error: std::io::Error| LoadError::Threads(error.to_string()))?;
        Ok(Self { ranks, answers, limits, fingerprint, device, usable: true })
    }

    /// What the numbers depend on: weights hash, dtype, backend, numerics version, ranks.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The device in words.
    pub fn device(&self) -> String {
        self.device.clone()
    }

    /// Waits for all ranks' answers, which are the same; of several errors the first one is the others' cause.
    fn answer(&self) -> Answer {
        let size = self.ranks.len();
        let (mut answer, mut cause) = (Vec::new(), None);
        for _ in &self.ranks {
            match self.answers.recv() {
                Ok((_, Some(Ok(scores)))) => answer = scores,
                Ok((rank, Some(Err(error)))) => {
                    cause = cause.or(Some(BackendError(format!("rank {rank} of {size}: {error}"))));
                }
                Ok((rank, None)) => {
                    let died = format!("rank {rank} of {size} died: the model is loaded anew");
                    cause = cause.or(Some(BackendError(died)));
                }
                Err(_) => cause = cause.or(Some(lost(size))),
            }
        }
        cause.map_or(Ok(answer), Err)
    }
}

fn lost(size: usize) -> BackendError {
    BackendError(format!("the group of {size} ranks is no more: the model is loaded anew"))
}

impl Rank {
    fn start<B: Backend>(
        rank: usize,
        mut part: B,
        answers: flume::Sender<(usize, Option<Answer>)>,
    ) -> std::io::Result<Self> {
        let (batches, asked) = flume::unbounded::<Arc<ForwardBatch>>();
        let work = move || {
            let _alarm = Alarm { rank, answers: &answers };
            for batch in asked {
                let answer = part.forward(&batch);
                let failed = answer.is_err();
                // A rank that fails is out of step with the others: it ends, and those that wait for it are told.
                if answers.send((rank, Some(answer))).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("surprisal-rank-{rank}")).spawn(work)?;
        Ok(Self { batches: Some(batches), thread: Some(thread) })
    }
}

impl Backend for Group {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Answer {
        if !self.usable {
            return Err(lost(self.ranks.len()));
        }
        let batch = Arc::new(batch.clone());
        for batches in self.ranks.iter().filter_map(|rank| rank.batches.as_ref()) {
            // Each takes it, or has died and has said so.
            let _ = batches.send(Arc::clone(&batch));
        }
        let answer = self.answer();
        self.usable &= answer.is_ok();
        answer
    }

    fn is_usable(&self) -> bool {
        self.usable
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.ranks.iter_mut().for_each(|rank| rank.batches = None);
        for rank in &mut self.ranks {
            let _ = rank.thread.take().map(JoinHandle::join);
        }
    }
}
