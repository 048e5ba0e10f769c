//! Encoding of a text that follows another text.
//!
//! Some tokenizers mark the beginning of a text, for example with a space, so a text has other tokens at the beginning
//! than after another text. Such a tokenizer encodes a continuation after a sentinel: a short text whose tokens do not
//! depend on the text after it.

use tokenizers::Tokenizer;

use super::TokensAndOffsets;

/// The sentinels, in the order in which they are tried: the tokenizer may join one to a particular text.
const SENTINELS: [&str; 8] = ["\n", ".", "1", "a", "a\n", "a.", "\u{4e2d}", "|"];

/// Texts whose tokens at the beginning and after a sentinel are compared.
const PROBES: [&str; 6] = ["a", "b c", " b c", "7", "(", "\u{e9}"];

/// The encoder of texts that follow other texts.
#[derive(Clone, Debug)]
pub(super) struct ContinuationEncoder {
    /// The sentinels and their tokens; empty if texts have the same tokens at the beginning and after other texts.
    sentinels: Vec<(&'static str, Vec<u32>)>,
}

impl ContinuationEncoder {
    /// Compares the tokens of some texts at the beginning with their tokens after the sentinels.
    pub(super) fn probe(tokenizer: &Tokenizer) -> Self {
        let mut sentinels = Vec::new();
        for sentinel in SENTINELS {
            let tokens = tokenizer.encode_fast(sentinel, false).map(|encoding| encoding.get_ids().to_vec());
            sentinels.extend(tokens.ok().filter(|tokens| !tokens.is_empty()).map(|tokens| (sentinel, tokens)));
        }
        let encoder = Self { sentinels };
        let is_alike = |probe: &str| {
            let Ok(alone) = tokenizer.encode_fast(probe, false) else { return true };
            let mut after = encoder.sentinels.iter().filter_map(|sentinel| encode_after(tokenizer, sentinel, probe));
            after.all(|(tokens, _)| tokens == alone.get_ids())
        };
        if PROBES.into_iter().all(is_alike) { Self { sentinels: Vec::new() } } else { encoder }
    }

    /// Returns whether texts have the same tokens at the beginning and after other texts.
    pub(super) fn is_alike(&self) -> bool {
        self.sentinels.is_empty()
    }

    /// Returns the tokens and offsets of a text after a special token, or else after the first sentinel to which the
    /// tokenizer does not join it.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, special: Option<u32>, text: &str) -> Option<TokensAndOffsets> {
        let special = special.and_then(|id| Some((tokenizer.id_to_token(id)?, vec![id])));
        let after_special = special.and_then(|(name, tokens)| encode_after(tokenizer, &(&name, tokens), text));
        after_special.or_else(|| self.sentinels.iter().find_map(|sentinel| encode_after(tokenizer, sentinel, text)))
    }
}

/// Returns the tokens and offsets of a text after a sentinel; `None` if a token contains parts of both.
fn encode_after(
    tokenizer: &Tokenizer,
    (sentinel, sentinel_tokens): &(&str, Vec<u32>),
    text: &str,
) -> Option<TokensAndOffsets> {
    let encoding = tokenizer.encode(format!("{sentinel}{text}"), false).ok()?;
    let tokens = encoding.get_ids().strip_prefix(sentinel_tokens.as_slice())?;
    let (sentinel_offsets, text_offsets) = encoding.get_offsets().split_at(sentinel_tokens.len());
    // An unknown word, for example, has the same token whatever it contains.
    if sentinel_offsets.iter().any(|&(_, to)| to > sentinel.len()) {
        return None;
    }
    let mut offsets = Vec::with_capacity(tokens.len());
    for &(from, to) in text_offsets {
        offsets.push([from.checked_sub(sentinel.len())?, to.checked_sub(sentinel.len())?]);
    }
    Some((tokens.to_vec(), offsets))
}
