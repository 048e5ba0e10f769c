//! Incremental decoding of generated tokens into text.

use std::sync::Arc;

use crate::codec::TextCodec;
use crate::token_texts::TokenTexts;

/// An incremental decoder, which holds back text that later tokens may turn into a stop string.
pub(crate) struct Decoder {
    codec: Arc<dyn TextCodec>,
    texts: TokenTexts,
    /// Decoded text that may be the beginning of a stop string.
    held: String,
    stops: Arc<[String]>,
}

impl Decoder {
    pub(crate) fn new(codec: &Arc<dyn TextCodec>, prompt: &[u32], stops: Arc<[String]>) -> Self {
        Self { codec: Arc::clone(codec), texts: TokenTexts::after(codec, prompt), held: String::new(), stops }
    }

    /// Adds a token. Returns the text that became final, and the stop string that ends it, if any.
    pub(crate) fn push(&mut self, token: u32, is_last: bool) -> (String, Option<String>) {
        let text = self.texts.push(token);
        // The text does not include the names of special tokens.
        if !self.codec.piece(token).is_special {
            self.held.push_str(&text);
        }
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

    /// Returns all text that is still held back. Omits a character that is not complete.
    pub(crate) fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}
