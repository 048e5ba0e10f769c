//! A scorer with known log-probabilities, which a test can pause and resume.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use surprisal_engine::{
    FinishReason, GeneratedToken, Generation, ModelCard, PositionDetails, PositionOptions, Query, QueryEvent,
    QueryEvents, ScoreError, ScoreFuture, Scorer, Scores, Stats,
};
use tokio::sync::{mpsc, watch};

use super::{FAILS, INFINITE, MAX_LENGTH, PANICS, STOPS, VOCABULARY};

/// Returns the scorer's log-probability of a token after another, which is exact in f32.
pub(crate) fn logprob(before: u32, token: u32) -> f32 {
    -((before + 2 * token + 1) as f32) / 1024.0
}

/// Returns the token that the scorer generates after another: the next letter, and after Z an é, which has two tokens.
pub(crate) fn next(before: u32) -> u32 {
    match before {
        90 => 0xc3,
        0xc3 => 0xa9,
        0xa9 => 97,
        _ => before + 1,
    }
}

/// Returns the scorer's details of a token after another: the smaller a token id, the more probable the token.
pub(crate) fn position(before: u32, token: u32, options: &PositionOptions) -> PositionDetails {
    PositionDetails {
        rank: options.rank.then_some(token + 1),
        entropy: options.entropy.then(|| (before + token) as f32 / 256.0),
        subset: options
            .subset
            .as_ref()
            .map(|subset| -(subset.ids().map(|id| before + id).sum::<u32>() as f32) / 1024.0),
        top: (0..options.top.into()).map(|token| (token, logprob(before, token))).collect(),
    }
}

/// The queries that a scorer answers.
#[derive(Clone, Copy)]
enum Gate {
    Closed,
    /// Answers only queries that contain [`FAILS`].
    Failures,
    Open,
}

impl Gate {
    fn admits(self, query: &Query) -> bool {
        match self {
            Self::Closed => false,
            Self::Failures => query.tokens.contains(&FAILS),
            Self::Open => true,
        }
    }
}

/// A scorer that answers while its gate is open.
pub(crate) struct LetterScorer {
    card: ModelCard,
    gate: watch::Sender<Gate>,
    pub(crate) alive: AtomicBool,
    counts: Arc<Counts>,
    /// The seeds of all continuations.
    pub(crate) seeds: Mutex<Vec<u64>>,
}

#[derive(Default)]
pub(crate) struct Counts {
    running: AtomicU64,
    finished: AtomicU64,
    cancelled: AtomicU64,
}

/// A query in flight, which counts as cancelled if dropped before it is finished.
struct Ticket {
    counts: Arc<Counts>,
    finished: bool,
}

impl Ticket {
    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.counts.running.fetch_sub(1, Ordering::SeqCst);
        let ended = if self.finished { &self.counts.finished } else { &self.counts.cancelled };
        ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl LetterScorer {
    pub(crate) fn new() -> Self {
        Self::with_card(|card| card)
    }

    pub(crate) fn with_max_length(max_length: usize) -> Self {
        Self::with_card(|card| ModelCard { max_length, ..card })
    }

    /// Creates a scorer whose card is changed by `change`.
    pub(crate) fn with_card(change: impl FnOnce(ModelCard) -> ModelCard) -> Self {
        let card = change(ModelCard {
            id: "letters".to_owned(),
            fingerprint: "letters-1".to_owned(),
            vocab_size: VOCABULARY,
            max_length: MAX_LENGTH,
            device: "test".to_owned(),
        });
        Self {
            card,
            gate: watch::Sender::new(Gate::Open),
            alive: true.into(),
            counts: Arc::default(),
            seeds: Mutex::default(),
        }
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.gate.send_replace(if open { Gate::Open } else { Gate::Closed });
    }

    /// Answers only queries that contain [`FAILS`].
    pub(crate) fn open_for_failures(&self) {
        self.gate.send_replace(Gate::Failures);
    }
}

fn answer(Query { tokens, score_from, options, .. }: &Query) -> Result<Scores, ScoreError> {
    for token in &tokens[*score_from..] {
        match *token {
            FAILS => return Err(ScoreError::Backend("out of memory".to_owned())),
            STOPS => return Err(ScoreError::Stopped),
            PANICS => panic!("a scorer's defect"),
            _ => {}
        }
    }
    let one = |at: usize| match tokens[at] {
        INFINITE => f32::NEG_INFINITY,
        token => logprob(tokens[at - 1], token),
    };
    let cached_tokens = score_from - 1;
    let positions = (*score_from..tokens.len()).filter(|_| !options.is_empty());
    let positions = positions.map(|at| position(tokens[at - 1], tokens[at], options)).collect();
    let logprobs = (*score_from..tokens.len()).map(one).collect();
    let computed_tokens = tokens.len() - cached_tokens;
    Ok(Scores { logprobs, positions, cached_tokens, computed_tokens, ..Scores::default() })
}

/// Sends a query's scores and its continuation, token by token.
async fn send_events(query: Query, generation: Generation, sender: &mpsc::Sender<Result<QueryEvent, ScoreError>>) {
    let scores = answer(&query);
    let failed = scores.is_err();
    let _ = sender.send(scores.map(QueryEvent::Scores)).await;
    let mut before = *query.tokens.last().unwrap();
    for left in (0..generation.max_tokens).rev().filter(|_| !failed) {
        let id = next(before);
        let finish = if generation.stop.contains(&id) {
            Some(FinishReason::Stop)
        } else {
            (left == 0).then_some(FinishReason::Length)
        };
        let position = position(before, id, &generation.options);
        let token = GeneratedToken { id, logprob: logprob(before, id), position, finish_reason: finish };
        if sender.send(Ok(QueryEvent::Token(token))).await.is_err() || finish.is_some() {
            return;
        }
        before = id;
        tokio::task::yield_now().await;
    }
}

impl Scorer for LetterScorer {
    fn generate(&self, query: Query, generation: Generation) -> QueryEvents {
        self.seeds.lock().unwrap().push(generation.sampling.seed);
        self.counts.running.fetch_add(1, Ordering::SeqCst);
        let ticket = Ticket { counts: self.counts.clone(), finished: false };
        let mut gate = self.gate.subscribe();
        let (sender, events) = mpsc::channel(1);
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => return,
                _ = gate.wait_for(|gate| gate.admits(&query)) => {}
            }
            send_events(query, generation, &sender).await;
            if !sender.is_closed() {
                ticket.finish();
            }
        });
        QueryEvents::from(events)
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    fn score(&self, query: Query) -> ScoreFuture<'_> {
        self.counts.running.fetch_add(1, Ordering::SeqCst);
        let ticket = Ticket { counts: self.counts.clone(), finished: false };
        let mut gate = self.gate.subscribe();
        Box::pin(async move {
            gate.wait_for(|gate| gate.admits(&query)).await.map_err(|_| ScoreError::Stopped)?;
            ticket.finish();
            answer(&query)
        })
    }

    fn describe(&self) -> &ModelCard {
        &self.card
    }

    fn stats(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Stats {
            running_queries: read(&self.counts.running),
            finished_queries: read(&self.counts.finished),
            cancelled_queries: read(&self.counts.cancelled),
            computed_tokens: 300,
            cached_tokens: 100,
            total_blocks: 8,
            active_blocks: 2,
            ..Stats::default()
        }
    }
}
