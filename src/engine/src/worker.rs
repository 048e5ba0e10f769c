//! What lives on the engine's thread: queries arrive by channel, the scheduler and the backend answer them.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::backend::{Backend, BackendError, ForwardBatch, TokenScore};
use crate::scheduler::{Progress, QueryId, Scheduler, Step};
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
    Unusable(BackendError),
}

/// What lives on the engine's thread.
pub(crate) struct Worker<B> {
    scheduler: Scheduler,
    backend: B,
    receiver: flume::Receiver<Asked>,
    answers: HashMap<QueryId, Answer>,
    /// When each query arrived, and then when it began to be computed.
    since: HashMap<QueryId, Instant>,
    next_id: QueryId,
    /// Blocks that the workers before this one evicted.
    evicted_before: u64,
    shared: Arc<Shared>,
}

impl<B: Backend> Worker<B> {
    pub(crate) fn new(scheduler: Scheduler, backend: B, receiver: flume::Receiver<Asked>, shared: Arc<Shared>) -> Self {
        let evicted_before = shared.stats().evicted_blocks;
        let (answers, since) = (HashMap::new(), HashMap::new());
        Self { scheduler, backend, receiver, answers, since, next_id: 0, evicted_before, shared }
    }

    pub(crate) fn run(&mut self) -> End {
        while self.receive() {
            self.drop_cancelled();
            let step = self.scheduler.next_batch();
            self.note_started(&step);
            let empty = step.batch.scores.is_empty() && step.batch.tokens.is_empty();
            let (begun, queries, computed) = (Instant::now(), step.queries(), step.batch.tokens.len());
            let result = if empty { Ok(Vec::new()) } else { self.forward(&step.batch) };
            if !empty {
                self.note_pass(queries, computed, begun);
            }
            if let Err(error) = &result {
                tracing::error!(%error, "a forward pass failed");
                if !self.backend.is_usable() {
                    return End::Unusable(error.clone());
                }
            }
            let known = self.scheduler.complete(step, result);
            self.update_stats(&known);
            for (id, event) in known {
                self.tell(id, event);
            }
        }
        End::NobodyAsks
    }

    /// Tells all who wait that the backend is gone.
    pub(crate) fn lose(mut self, error: &BackendError) {
        self.answers.drain().for_each(|(_, answer)| answer.refuse(ScoreError::Lost(error.0.clone())));
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
            Ok(()) => {
                self.answers.insert(id, answer);
                self.since.insert(id, Instant::now());
            }
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
            self.since.remove(id);
        }
        let cancelled = self.scheduler.cancel(&gone);
        self.shared.stats().cancelled_queries += cancelled as u64;
    }

    /// Those that waited until now wait no longer.
    fn note_started(&mut self, step: &Step) {
        let mut stats = self.shared.stats();
        for id in step.started() {
            if let Some(since) = self.since.get_mut(id) {
                stats.queue_seconds.add(since.elapsed().as_secs_f64());
                *since = Instant::now();
            }
        }
    }

    fn note_pass(&self, queries: usize, tokens: usize, begun: Instant) {
        let mut stats = self.shared.stats();
        stats.forward_passes += 1;
        stats.computed_tokens += tokens as u64;
        stats.pass_queries.add(queries as f64);
        stats.pass_tokens.add(tokens as f64);
        stats.pass_seconds.add(begun.elapsed().as_secs_f64());
    }

    fn update_stats(&mut self, known: &[Progress]) {
        let mut stats = self.shared.stats();
        for (id, event) in known {
            let since = self.since.remove(id);
            match event {
                Ok(Event::Scores(scores)) => {
                    since.inspect(|since| stats.prefill_seconds.add(since.elapsed().as_secs_f64()));
                    stats.recomputed_tokens += scores.recomputed_tokens as u64;
                    stats.finished_queries += 1;
                    stats.cached_tokens += scores.cached_tokens as u64;
                    stats.scored_tokens += scores.logprobs.len() as u64;
                }
                Ok(Event::Token(_)) => stats.generated_tokens += 1,
                Err(_) => {}
            }
        }
        let (waiting, running) = self.scheduler.queue();
        (stats.waiting_queries, stats.running_queries) = (waiting as u64, running as u64);
        let cache = self.scheduler.cache_use();
        stats.total_blocks = cache.total as u64;
        stats.active_blocks = cache.held as u64;
        stats.cached_blocks = cache.idle as u64;
        stats.evicted_blocks = self.evicted_before + cache.evicted;
    }
}
