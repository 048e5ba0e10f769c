//! Incremental decoding of generated tokens into text.

use std::sync::Arc;

use crate::app::App;

/// The number of tokens at the end of a prompt to decode along with the generated tokens, because a token's leading
/// space may depend on the tokens before it.
const PROMPT_TOKENS: usize = 5;

/// An incremental decoder, which holds back text that later tokens may change or turn into a stop string.
pub(crate) struct Decoder {
    app: App,
    tokens: Vec<u32>,
    /// Index of the token at which decoding begins.
    start: usize,
    /// Index of the first token that has not been decoded.
    decoded: usize,
    /// Decoded text that may be the beginning of a stop string.
    held: String,
    stops: Arc<[String]>,
}

impl Decoder {
    pub(crate) fn new(app: App, prompt: &[u32], stops: Arc<[String]>) -> Self {
        let tokens = prompt[prompt.len().saturating_sub(PROMPT_TOKENS)..].to_vec();
        Self { app, start: 0, decoded: tokens.len(), tokens, held: String::new(), stops }
    }

    /// Adds a token. Returns the text that became final, and the stop string that ends it, if any.
    pub(crate) fn push(&mut self, token: u32, is_last: bool) -> (String, Option<String>) {
        self.tokens.push(token);
        let new_text = self.decode_new(is_last);
        self.held.push_str(&new_text);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        if let Some((at, stop)) = found.min_by_key(|found| found.0) {
            let stop = stop.clone();
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        if is_last {
            return (self.flush(), None);
        }
        let may_begin_stop = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let mut starts = self.held.char_indices().map(|(at, _)| at);
        let final_length = starts.find(may_begin_stop).unwrap_or(self.held.len());
        let held = self.held.split_off(final_length);
        (std::mem::replace(&mut self.held, held), None)
    }

    /// Returns all text that is still held back.
    pub(crate) fn flush(&mut self) -> String {
        let undecoded = self.decode_new(true);
        std::mem::take(&mut self.held) + &undecoded
    }

    /// Decodes the tokens that have not been decoded yet. Returns no text while the last token may be an incomplete
    /// character.
    fn decode_new(&mut self, is_last: bool) -> String {
        let before = self.decode(self.start, self.decoded);
        let all = self.decode(self.start, self.tokens.len());
        if all.ends_with(char::REPLACEMENT_CHARACTER) && !is_last {
            return String::new();
        }
        let new_text = all.strip_prefix(before.as_str()).map(str::to_owned);
        let new_text = new_text.unwrap_or_else(|| self.decode(self.decoded, self.tokens.len()));
        (self.start, self.decoded) = (self.decoded, self.tokens.len());
        new_text
    }

    fn decode(&self, from: usize, to: usize) -> String {
        let tokens = &self.tokens[from..to];
        let one_by_one = || tokens.iter().map(|&token| token_text(&self.app, token)).collect();
        self.app.codec.decode_without_special(tokens).unwrap_or_else(|_| one_by_one())
    }
}

/// Returns a token's text. A token that cannot be decoded by itself becomes `token_id:{id}`, vLLM's format for tokens
/// whose texts are not unique.
pub(crate) fn token_text(app: &App, token: u32) -> String {
    app.codec.decode(&[token]).unwrap_or_else(|_| format!("token_id:{token}"))
}
