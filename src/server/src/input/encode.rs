//! Encoding of texts as token ids, and insertion of BOS before them.

use surprisal_api::{Bos, Detail, Text};

use super::validate::check_vocabulary;
use crate::app::App;
use crate::problem::{self, Failure};

/// A text's tokens.
#[derive(Clone, Debug)]
pub(crate) struct EncodedText {
    pub(crate) tokens: Vec<u32>,
    /// Byte range of each token in the text; `None` if the text was sent as token ids, or if offsets were not
    /// requested.
    pub(crate) offsets: Option<Vec<[usize; 2]>>,
}

/// Encodes a text, with offsets if `detail` is [`Detail::Tokens`]. Rejects token ids outside the vocabulary.
pub(crate) fn encode(
    app: &App,
    text: Text,
    detail: Detail,
    field: &str,
    query: Option<usize>,
) -> Result<EncodedText, Failure> {
    let (tokens, offsets) = match text {
        Text::Tokens(tokens) => (tokens, None),
        Text::String(text) if text.is_empty() => (Vec::new(), Some(Vec::new())),
        Text::String(text) => {
            let encoded = match detail {
                Detail::Sum => app.codec.encode(&text).map(|tokens| (tokens, None)),
                Detail::Tokens => app.codec.encode_with_offsets(&text).map(|(tokens, at)| (tokens, Some(at))),
            };
            encoded.map_err(|reason| problem::text_not_encodable(field, query, &reason))?
        }
    };
    check_vocabulary(&tokens, app.model().vocab_size, field, query)?;
    Ok(EncodedText { tokens, offsets })
}

/// Encodes a target so that it continues its context. If the tokenizer adds a space before every text, the added space
/// replaces the space at the beginning of the target, if there is one.
pub(crate) fn encode_target(
    app: &App,
    text: Text,
    detail: Detail,
    field: &str,
    query: Option<usize>,
) -> Result<EncodedText, Failure> {
    let without_space = match &text {
        Text::String(text) if app.codec.adds_prefix_space() => text.strip_prefix(' ').filter(|rest| !rest.is_empty()),
        _ => None,
    };
    let Some(without_space) = without_space else {
        return encode(app, text, detail, field, query);
    };
    let mut encoded = encode(app, Text::from(without_space), detail, field, query)?;
    for [from, to] in encoded.offsets.iter_mut().flatten() {
        // The space belongs to the first token.
        *from += usize::from(*from > 0);
        *to += 1;
    }
    Ok(encoded)
}

/// Inserts `bos`, the BOS token that the model's tokenizer adds to texts, before a text's tokens if `rule` requires it.
/// Only [`Bos::Always`] does so for tokens that already begin with BOS.
pub(crate) fn prepend_bos(rule: Bos, bos: Option<u32>, mut tokens: Vec<u32>) -> Vec<u32> {
    let is_needed = |bos: &u32| match rule {
        Bos::Auto => tokens.first() != Some(bos),
        Bos::Always => true,
        Bos::None => false,
    };
    if let Some(bos) = bos.filter(is_needed) {
        tokens.insert(0, bos);
    }
    tokens
}
