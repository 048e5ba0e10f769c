//! A prompt's continuation: the tokens that the engine generates, their text once it is final, and the reason why the
//! continuation ended.

use std::sync::Arc;
use std::time::Instant;

use surprisal_engine::{FinishReason, GeneratedToken, Generation, Query, QueryEvent, QueryEvents, ScoreError, Scores};

use super::decoder::Decoder;
use crate::app::App;
use crate::limits::disposal::Bulky;
use crate::telemetry::metrics::Metrics;

/// A prompt that is being continued. Dropping the continuation cancels its query.
pub(crate) struct Continuation {
    events: QueryEvents,
    decoder: Decoder,
    finished: bool,
    metrics: Arc<Metrics>,
    /// Time of the last token, or of the start of the query.
    last: Instant,
    /// `true` once a token has arrived.
    has_token: bool,
}

/// An event of a continuation.
pub(crate) enum ContinuationEvent {
    /// Scores of the prompt, as the first event.
    Scores(Scores),
    /// A token, and the text that became final with this token, which may be empty. `end` is set only for the last
    /// token.
    Token { token: GeneratedToken, text: String, end: Option<EndReason> },
}

/// The reason why a continuation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    Length,
    StopToken(u32),
    StopText(String),
}

impl EndReason {
    /// Returns OpenAI's `finish_reason`.
    pub(crate) fn finish_reason(&self) -> &'static str {
        match self {
            EndReason::Length => "length",
            EndReason::StopToken(_) | EndReason::StopText(_) => "stop",
        }
    }
}

/// A whole completion: the prompt's scores, and the continuation.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    pub(crate) scores: Scores,
    pub(crate) tokens: Vec<GeneratedToken>,
    pub(crate) text: String,
    pub(crate) end: Option<EndReason>,
}

impl Continuation {
    /// Starts generation. The first stop string that appears ends the continuation and is not part of it.
    pub(crate) fn start(app: &App, query: Query, generation: Generation, stops: Arc<[String]>) -> Self {
        let decoder = Decoder::new(&app.codec, &query.tokens, stops);
        Self {
            events: app.scorer.generate(query, generation),
            decoder,
            finished: false,
            metrics: Arc::clone(&app.telemetry.metrics),
            last: Instant::now(),
            has_token: false,
        }
    }

    /// Waits for the next event; returns `None` after the end.
    pub(crate) async fn next(&mut self) -> Result<Option<ContinuationEvent>, ScoreError> {
        if self.finished {
            return Ok(None);
        }
        let token = match self.events.recv().await.unwrap_or(Err(ScoreError::Stopped))? {
            QueryEvent::Scores(scores) => return Ok(Some(ContinuationEvent::Scores(scores))),
            QueryEvent::Token(token) => token,
        };
        self.observe_token();
        let (text, matched) = match token.finish_reason {
            // The text does not include a stop token.
            Some(FinishReason::Stop) => (self.decoder.flush(), None),
            finish => self.decoder.push(token.id, finish.is_some()),
        };
        let end = match (matched, token.finish_reason) {
            (Some(stop), _) => Some(EndReason::StopText(stop)),
            (None, Some(FinishReason::Stop)) => Some(EndReason::StopToken(token.id)),
            (None, Some(FinishReason::Length)) => Some(EndReason::Length),
            (None, None) => None,
        };
        if end.is_some() {
            self.finished = true;
            self.events.close();
        }
        Ok(Some(ContinuationEvent::Token { token, text, end }))
    }

    /// Records the time to the first token, or the time between two tokens.
    fn observe_token(&mut self) {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        if self.has_token {
            self.metrics.observe_inter_token(seconds);
        } else {
            self.metrics.observe_first_token(seconds);
        }
        (self.last, self.has_token) = (now, true);
    }

    /// Waits for the whole completion.
    pub(crate) async fn finish(mut self) -> Result<Completion, ScoreError> {
        let mut completion = Completion::default();
        while let Some(event) = self.next().await? {
            completion.add(event);
        }
        Ok(completion)
    }
}

impl Bulky for Completion {
    fn allocations(&self) -> usize {
        2 + self.tokens.len() + self.scores.allocations()
    }
}

impl Completion {
    /// Adds the next event of a continuation.
    pub(crate) fn add(&mut self, event: ContinuationEvent) {
        match event {
            ContinuationEvent::Scores(scores) => self.scores = scores,
            ContinuationEvent::Token { token, text, end } => {
                self.tokens.push(token);
                self.text.push_str(&text);
                self.end = end;
            }
        }
    }
}
