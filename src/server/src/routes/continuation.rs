//! A prompt's continuation: tokens as they are drawn, their text as it becomes certain, and where it ends.

use std::sync::Arc;

use surprisal_engine::{FinishReason, GeneratedToken, Generation, Query, QueryEvent, QueryEvents, ScoreError, Scores};

use crate::App;

/// A prompt that is being continued. Dropping it cancels its query.
pub(super) struct Continuation {
    events: QueryEvents,
    text: Text,
    finished: bool,
}

/// What became known.
pub(super) enum Piece {
    /// The prompt's scores; once, first.
    Scores(Scores),
    /// A token, and the text that became certain with it: it may be empty.
    Token { token: GeneratedToken, text: String, end: Option<End> },
}

/// Why a continuation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Length,
    Token(u32),
    Text(String),
}

impl End {
    /// OpenAI's word for it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            End::Length => "length",
            End::Token(_) | End::Text(_) => "stop",
        }
    }
}

/// All of a continuation.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) scores: Scores,
    pub(super) tokens: Vec<GeneratedToken>,
    pub(super) text: String,
    pub(super) end: Option<End>,
}

impl Continuation {
    /// Asks the engine; `stops` are texts that end the continuation and are not part of it.
    pub(super) fn ask(app: &App, query: Query, generation: Generation, stops: Arc<[String]>) -> Self {
        let text = Text::new(app.clone(), &query.tokens, stops);
        Self { events: app.scorer.generate(query, generation), text, finished: false }
    }

    /// What becomes known next; nothing after the end.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, ScoreError> {
        if self.finished {
            return Ok(None);
        }
        let token = match self.events.recv().await.unwrap_or(Err(ScoreError::Stopped))? {
            QueryEvent::Scores(scores) => return Ok(Some(Piece::Scores(scores))),
            QueryEvent::Token(token) => token,
        };
        let (text, matched) = match token.finish_reason {
            // The token that ends a text has none.
            Some(FinishReason::Stop) => (self.text.rest(), None),
            finish => self.text.add(token.id, finish.is_some()),
        };
        let end = match (matched, token.finish_reason) {
            (Some(stop), _) => Some(End::Text(stop)),
            (None, Some(FinishReason::Stop)) => Some(End::Token(token.id)),
            (None, Some(FinishReason::Length)) => Some(End::Length),
            (None, None) => None,
        };
        if end.is_some() {
            self.finished = true;
            self.events.close();
        }
        Ok(Some(Piece::Token { token, text, end }))
    }

    /// All of it.
    pub(super) async fn written(mut self) -> Result<Written, ScoreError> {
        let mut written = Written::default();
        while let Some(piece) = self.next().await? {
            match piece {
                Piece::Scores(scores) => written.scores = scores,
                Piece::Token { token, text, end } => {
                    written.tokens.push(token);
                    written.text.push_str(&text);
                    written.end = end;
                }
            }
        }
        Ok(written)
    }
}

/// How many tokens of the prompt are decoded with what follows them, for spaces that depend on what stands before.
const BEFORE: usize = 5;

/// Tokens to text, piece by piece: what a later token may still change, or make a stop of, is held back.
struct Text {
    app: App,
    tokens: Vec<u32>,
    /// Decoding begins here, and what is decoded up to `read` is given out already.
    from: usize,
    read: usize,
    /// Text that may turn out to begin a stop.
    held: String,
    stops: Arc<[String]>,
}

impl Text {
    fn new(app: App, prompt: &[u32], stops: Arc<[String]>) -> Self {
        let tokens = prompt[prompt.len().saturating_sub(BEFORE)..].to_vec();
        Self { app, from: 0, read: tokens.len(), tokens, held: String::new(), stops }
    }

    /// The text that is certain with one more token, and the stop it runs into, if it does.
    fn add(&mut self, token: u32, last: bool) -> (String, Option<String>) {
        self.tokens.push(token);
        let fresh = self.decoded(last);
        self.held.push_str(&fresh);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        if let Some((at, stop)) = found.min_by_key(|found| found.0) {
            let stop = stop.clone();
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        if last {
            return (self.rest(), None);
        }
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let certain = self.held.char_indices().map(|(at, _)| at).find(begins).unwrap_or(self.held.len());
        let held = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, held), None)
    }

    /// What was held back.
    fn rest(&mut self) -> String {
        let undecoded = self.decoded(true);
        std::mem::take(&mut self.held) + &undecoded
    }

    /// The text of the tokens not given out; none while the last of them may be part of a character.
    fn decoded(&mut self, last: bool) -> String {
        let (before, all) = (self.decode(self.from, self.read), self.decode(self.from, self.tokens.len()));
        if all.ends_with(char::REPLACEMENT_CHARACTER) && !last {
            return String::new();
        }
        let fresh = all.strip_prefix(before.as_str()).map(str::to_owned);
        let fresh = fresh.unwrap_or_else(|| self.decode(self.read, self.tokens.len()));
        (self.from, self.read) = (self.read, self.tokens.len());
        fresh
    }

    fn decode(&self, from: usize, to: usize) -> String {
        let tokens = &self.tokens[from..to];
        let one_by_one = || tokens.iter().map(|&token| token_text(&self.app, token)).collect();
        self.app.codec.text(tokens).unwrap_or_else(|_| one_by_one())
    }
}

/// A token's text; a token that has none is called by its id, as vLLM calls it where texts are not unique.
pub(super) fn token_text(app: &App, token: u32) -> String {
    app.codec.decode(&[token]).unwrap_or_else(|_| format!("token_id:{token}"))
}
