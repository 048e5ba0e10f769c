//! `MistralScorer`: a scorer that reads a prompt's logits from mistralrs, with the precautions that this needs.
//!
//! mistralrs returns raw logits for one sequence at a time, so a semaphore admits one query at a time. The scorer
//! drains the response channel until it closes, because mistralrs counts a request as running until then. It also
//! counts the rows of logits, because mistralrs would omit the rows of a shared prefix. A request that was sent runs to
//! its end, even if nobody waits for its answer anymore.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mistralrs::{Constraint, Model, NormalRequest, Request, RequestMessage, ResponseOk, SamplingParams, Tensor};
use surprisal_engine::{Generation, ModelCard, Query, QueryEvents, ScoreError, ScoreFuture, Scorer, Scores, Stats};
use tokio::sync::{Semaphore, mpsc};

use crate::load::{LoadError, Source};
use crate::logprobs::logprobs;

/// A model served by mistralrs.
pub struct MistralScorer {
    engine: Arc<Engine>,
    card: ModelCard,
}

struct Engine {
    model: Model,
    /// One permit: mistralrs computes one sequence at a time.
    slot: Semaphore,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    waiting: AtomicU64,
    running: AtomicU64,
    finished: AtomicU64,
    cancelled: AtomicU64,
    computed: AtomicU64,
    scored: AtomicU64,
}

impl MistralScorer {
    /// Loads a model and runs a first query, which reveals the vocabulary's size. The maximum sequence length, in
    /// tokens, is the smallest of the model's own limit, its sliding window and `max_length`.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read, the quantization is unknown, or mistralrs rejects the model.
    pub async fn load(id: String, source: &Source, max_length: Option<usize>) -> Result<Self, LoadError> {
        let kind = match (&source.isq, source.is_gguf()) {
            (Some(isq), _) => isq.clone(),
            (None, true) => "gguf".to_owned(),
            (None, false) => "f32".to_owned(),
        };
        let window = source.window()?;
        // Verify checksums before loading, so that the error names a damaged file.
        let hash = source.hash()?;
        let engine = Engine { model: source.load().await?, slot: Semaphore::new(1), counts: Counts::default() };
        let (vocab_size, model_length) = engine.shape().await.map_err(|reason| source.rejected(reason))?;
        let card = ModelCard {
            id,
            fingerprint: format!("{hash}-{kind}-mistralrs-0.8.1"),
            vocab_size,
            max_length: [max_length, window].into_iter().flatten().fold(model_length, usize::min),
            device: "cpu, mistralrs".to_owned(),
        };
        Ok(Self { engine: Arc::new(engine), card })
    }

    fn check(&self, query: &Query) -> Result<(), ScoreError> {
        let (len, limit) = (query.tokens.len(), self.card.max_length);
        if query.score_from == 0 {
            return Err(ScoreError::NoContext(0));
        }
        if query.score_from >= len {
            return Err(ScoreError::NothingToScore { score_from: query.score_from, len });
        }
        if len > limit {
            return Err(ScoreError::TooLong { len, limit });
        }
        if !query.options.is_empty() {
            return Err(ScoreError::Unsupported("return alternatives, ranks, entropies or subsets"));
        }
        match query.tokens.iter().position(|&token| token as usize >= self.card.vocab_size) {
            Some(position) => Err(ScoreError::TokenOutOfRange {
                token: query.tokens[position],
                position,
                limit: self.card.vocab_size,
            }),
            None => Ok(()),
        }
    }
}

/// A query that waits for its turn. When dropped, it counts as cancelled unless it has started.
struct WaitingQuery {
    engine: Arc<Engine>,
    started: bool,
}

impl Drop for WaitingQuery {
    fn drop(&mut self) {
        let counts = &self.engine.counts;
        counts.waiting.fetch_sub(1, Ordering::Relaxed);
        if !self.started {
            counts.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Scorer for MistralScorer {
    fn score(&self, query: Query) -> ScoreFuture<'_> {
        Box::pin(async move {
            self.check(&query)?;
            let engine = self.engine.clone();
            engine.counts.waiting.fetch_add(1, Ordering::Relaxed);
            let mut waiting = WaitingQuery { engine: engine.clone(), started: false };
            let permit = engine.slot.acquire().await.map_err(|_| ScoreError::Stopped)?;
            // The query runs to its end even if this future is dropped, so the permit is returned only when the engine
            // is free again.
            permit.forget();
            waiting.started = true;
            drop(waiting);
            let task = tokio::spawn(async move {
                engine.counts.running.fetch_add(1, Ordering::Relaxed);
                let answer = engine.answer(&query).await;
                engine.counts.running.fetch_sub(1, Ordering::Relaxed);
                engine.slot.add_permits(1);
                answer
            });
            task.await.unwrap_or_else(|error| Err(ScoreError::Backend(error.to_string())))
        })
    }

    fn generate(&self, _: Query, _: Generation) -> QueryEvents {
        let (answer, events) = mpsc::channel(1);
        // The channel is new and has capacity.
        let _ = answer.try_send(Err(ScoreError::Unsupported("generate text")));
        QueryEvents::from(events)
    }

    fn describe(&self) -> &ModelCard {
        &self.card
    }

    fn has_position_details(&self) -> bool {
        false
    }

    fn stats(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.engine.counts;
        Stats {
            waiting_queries: read(&counts.waiting),
            running_queries: read(&counts.running),
            finished_queries: read(&counts.finished),
            cancelled_queries: read(&counts.cancelled),
            computed_tokens: read(&counts.computed),
            scored_tokens: read(&counts.scored),
            forward_passes: read(&counts.finished),
            ..Stats::default()
        }
    }
}

impl Engine {
    /// Returns the vocabulary's size and the maximum sequence length, in tokens.
    async fn shape(&self) -> Result<(usize, usize), String> {
        let logits = self.logits(&[0, 0]).await?;
        let vocab_size = logits.dim(1).map_err(|error| error.to_string())?;
        let max_length = self.model.max_sequence_length().map_err(|error| error.to_string())?;
        Ok((vocab_size, max_length.ok_or("the model does not report its maximum sequence length")?))
    }

    async fn answer(&self, query: &Query) -> Result<Scores, ScoreError> {
        let logits = match self.logits(&query.tokens).await {
            Ok(logits) => logits,
            // If mistralrs' engine died, the next request restarts it.
            Err(reason) => {
                tracing::warn!(%reason, "mistralrs lost a request; retrying once");
                self.logits(&query.tokens).await.map_err(ScoreError::Backend)?
            }
        };
        let (tokens, score_from) = (query.tokens.clone(), query.score_from);
        let scored = tokio::task::spawn_blocking(move || logprobs(&logits, &tokens, score_from)).await;
        let logprobs = scored.map_err(|error| error.to_string()).flatten().map_err(ScoreError::Backend)?;
        self.counts.finished.fetch_add(1, Ordering::Relaxed);
        self.counts.computed.fetch_add(query.tokens.len() as u64, Ordering::Relaxed);
        self.counts.scored.fetch_add(logprobs.len() as u64, Ordering::Relaxed);
        Ok(Scores { logprobs, computed_tokens: query.tokens.len(), ..Scores::default() })
    }

    async fn logits(&self, tokens: &[u32]) -> Result<Tensor, String> {
        let (response, mut responses) = mpsc::channel(4);
        let sender = self.model.inner().get_sender(None).map_err(|error| error.to_string())?;
        let request = request(tokens.to_vec(), response);
        sender.send(request).await.map_err(|error| format!("mistralrs does not accept requests: {error}"))?;
        let first = responses.recv().await.ok_or("mistralrs returned no response")?;
        while responses.recv().await.is_some() {}
        match first.as_result() {
            Ok(ResponseOk::Raw { logits_chunks, .. }) => {
                let logits = logits_chunks.into_iter().next().ok_or("mistralrs returned no logits")?;
                match logits.dim(0) {
                    Ok(rows) if rows == tokens.len() => Ok(logits),
                    Ok(rows) => Err(format!("mistralrs returned {rows} rows of logits for {} tokens", tokens.len())),
                    Err(error) => Err(error.to_string()),
                }
            }
            Ok(_) => Err("mistralrs returned something other than logits".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Returns a request for a prompt's logits that generates no tokens.
fn request(tokens: Vec<u32>, response: mpsc::Sender<mistralrs::Response>) -> Request {
    let sampling_params = SamplingParams { max_len: Some(0), ..SamplingParams::deterministic() };
    Request::Normal(Box::new(NormalRequest {
        messages: RequestMessage::CompletionTokens(tokens),
        sampling_params,
        response,
        return_logprobs: false,
        is_streaming: false,
        id: 0,
        constraint: Constraint::None,
        suffix: None,
        tools: None,
        tool_choice: None,
        logits_processors: None,
        return_raw_logits: true,
        web_search_options: None,
        model_id: None,
        truncate_sequence: false,
    }))
}
