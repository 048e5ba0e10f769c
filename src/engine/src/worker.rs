//! What lives on the engine's thread: queries arrive by channel, the scheduler and the backend answer them.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::backend::{Backend, BackendError, ForwardBatch, TokenScore};
use crate::scheduler::{Progress, QueryId, Scheduler};
use crate::scorer::{Event, Generation, Query, ScoreError, Scores, Stats};

/// What the engine's thread tells others.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) stats: Mutex<Stats>,
    pub(crate) alive: AtomicBool,
}

impl Shared {
    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A query and where its answer goes.
pub(crate) struct Asked {
    pub(crate) query: Query,
    pub(crate) answer: Answer,
}

/// Where an answer goes.
pub(crate) enum Answer {
    /// Scores alone.
    Scores(oneshot::Sender<Result<Scores, ScoreError>>),
    /// Everything, as it becomes known; there is room for all of it.
    Events(mpsc::Sender<Result<Event, ScoreError>>, Generation),
}

impl Answer {
    /// Nobody is waiting for it any more.
    fn is_closed(&self) -> bool {
        match self {
            Answer::Scores(answer) => answer.is_closed(),
            Answer::Events(answer, _) => answer.is_closed(),
        }
    }

    /// The receiver may be gone by now; then nobody is waiting for the answer.
    pub(crate) fn refuse(self, error: ScoreError) {
        match self {
            Answer::Scores(answer) => drop(answer.send(Err(error))),
            Answer::Events(answer, _) => drop(answer.try_send(Err(error))),
        }
    }
}

/// Why a worker ended.
pub(crate) enum End {
    /// The engine was dropped, and everything is answered.
    NobodyAsks,
    /// The backend says that it cannot go on.
    Unusable,
}

/// What lives on the engine's thread.
pub(crate) struct Worker<B> {
    scheduler: Scheduler,
    backend: B,
    receiver: flume::Receiver<Asked>,
    answers: HashMap<QueryId, Answer>,
    next_id: QueryId,
    shared: Arc<Shared>,
}

impl<B: Backend> Worker<B> {
    pub(crate) fn new(scheduler: Scheduler, backend: B, receiver: flume::Receiver<Asked>, shared: Arc<Shared>) -> Self {
        Self { scheduler, backend, receiver, answers: HashMap::new(), next_id: 0, shared }
    }

    pub(crate) fn run(&mut self) -> End {
        while self.receive() {
            self.drop_cancelled();
            let step = self.scheduler.next_batch();
            let computed = step.batch.tokens.len() as u64;
            let empty = step.batch.scores.is_empty() && step.batch.tokens.is_empty();
            let result = if empty { Ok(Vec::new()) } else { self.forward(&step.batch) };
            if let Err(error) = &result {
                tracing::error!(%error, "a forward pass failed");
                if !self.backend.is_usable() {
                    return End::Unusable;
                }
            }
            let known = self.scheduler.complete(step, result);
            self.update_stats(computed, u64::from(!empty), &known);
            for (id, event) in known {
                self.tell(id, event);
            }
        }
        End::NobodyAsks
    }

    /// A panic is a failure of this pass.
    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        let forward = AssertUnwindSafe(|| self.backend.forward(batch));
        catch_unwind(forward).unwrap_or_else(|_| Err(BackendError("it panicked; the log has more".to_owned())))
    }

    /// Takes in what has arrived, waiting if there is nothing to do; false when it is time to stop.
    fn receive(&mut self) -> bool {
        if self.scheduler.is_idle() {
            match self.receiver.recv() {
                Ok(asked) => self.submit(asked),
                Err(flume::RecvError::Disconnected) => return false,
            }
        }
        while let Ok(asked) = self.receiver.try_recv() {
            self.submit(asked);
        }
        true
    }

    fn submit(&mut self, Asked { query, answer }: Asked) {
        let id = self.next_id;
        self.next_id += 1;
        let submitted = match &answer {
            Answer::Scores(_) => self.scheduler.submit(id, query),
            Answer::Events(_, generation) => self.scheduler.submit_generation(id, query, generation.clone()),
        };
        match submitted {
            Ok(()) => drop(self.answers.insert(id, answer)),
            Err(error) => answer.refuse(error),
        }
    }

    /// Tells what became known of a query; the last of it takes it out of the list.
    fn tell(&mut self, id: QueryId, event: Result<Event, ScoreError>) {
        let goes_on = match (&event, self.answers.get(&id)) {
            (Ok(Event::Scores(_)), Some(Answer::Events(..))) => true,
            (Ok(Event::Token(token)), _) => token.finish.is_none(),
            _ => false,
        };
        if goes_on {
            if let Some(Answer::Events(answer, _)) = self.answers.get(&id) {
                let _ = answer.try_send(event);
            }
            return;
        }
        match (self.answers.remove(&id), event) {
            (Some(Answer::Scores(answer)), Ok(Event::Scores(scores))) => drop(answer.send(Ok(scores))),
            (Some(Answer::Events(answer, _)), event) => drop(answer.try_send(event)),
            (Some(answer), Err(error)) => answer.refuse(error),
            (Some(Answer::Scores(_)), Ok(Event::Token(_))) | (None, _) => {}
        }
    }

    fn drop_cancelled(&mut self) {
        let gone: Vec<QueryId> =
            self.answers.iter().filter(|(_, answer)| answer.is_closed()).map(|(&id, _)| id).collect();
        if gone.is_empty() {
            return;
        }
        for id in &gone {
            self.answers.remove(id);
        }
        let cancelled = self.scheduler.cancel(&gone);
        self.shared.stats().cancelled_queries += cancelled as u64;
    }

    fn update_stats(&self, computed: u64, passes: u64, known: &[Progress]) {
        let mut stats = self.shared.stats();
        stats.computed_tokens += computed;
        stats.forward_passes += passes;
        for event in known.iter().filter_map(|(_, event)| event.as_ref().ok()) {
            match event {
                Event::Scores(scores) => {
                    stats.finished_queries += 1;
                    stats.cached_tokens += scores.cached_tokens as u64;
                    stats.scored_tokens += scores.logprobs.len() as u64;
                }
                Event::Token(_) => stats.generated_tokens += 1,
            }
        }
        let (waiting, running) = self.scheduler.queue();
        (stats.waiting_queries, stats.running_queries) = (waiting as u64, running as u64);
        let cache = self.scheduler.cache_use();
        stats.total_blocks = cache.total as u64;
        stats.active_blocks = cache.held as u64;
        stats.cached_blocks = cache.idle as u64;
        stats.evicted_blocks = cache.evicted;
    }
}
