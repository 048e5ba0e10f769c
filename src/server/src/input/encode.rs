//! Encoding of texts as token ids, and addition of special tokens.

use std::ops::Range;

use surprisal_api::{Bos, Detail, Text};

use super::validate::check_vocabulary;
use crate::app::App;
use crate::codec::TextCodec;
use crate::problem::{self, Failure};

/// A text's tokens.
#[derive(Clone, Debug)]
pub(crate) struct EncodedText {
    pub(crate) tokens: Vec<u32>,
    /// Byte range of each token in the text; `None` if the text was sent as token ids, or if offsets were not
    /// requested.
    pub(crate) offsets: Option<Vec<[usize; 2]>>,
}

/// Rejects a text that cannot fit the model's maximum length, or that takes too much memory to tokenize.
pub(crate) fn check_text(app: &App, text: &str, field: &str, query: Option<usize>) -> Result<(), Failure> {
    let limit = app.text_limits.context_bytes;
    if text.len() > limit {
        return Err(problem::text_too_long(query, field, text.len(), limit, app.model().max_length));
    }
    check_tokenizing(app, text, field, query)
}

/// Rejects a text that takes too much memory to tokenize.
pub(crate) fn check_tokenizing(app: &App, text: &str, field: &str, query: Option<usize>) -> Result<(), Failure> {
    let limit = app.text_limits.tokenizing_bytes;
    if text.len() > limit { Err(problem::text_too_large(query, field, text.len(), "bytes", limit)) } else { Ok(()) }
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
            check_text(app, &text, field, query)?;
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

/// Encodes a text that follows another text. `special` is the special token before the text, if there is one.
pub(crate) fn encode_continuation(
    app: &App,
    special: Option<u32>,
    text: Text,
    detail: Detail,
    field: &str,
    query: Option<usize>,
) -> Result<EncodedText, Failure> {
    let text = match text {
        Text::String(text) if !text.is_empty() && !app.codec.encodes_continuations_alike() => text,
        text => return encode(app, text, detail, field, query),
    };
    check_text(app, &text, field, query)?;
    let encoded = app.codec.encode_continuation(special, &text);
    let (tokens, offsets) = encoded.map_err(|reason| problem::text_not_encodable(field, query, &reason))?;
    check_vocabulary(&tokens, app.model().vocab_size, field, query)?;
    Ok(EncodedText { tokens, offsets: Some(offsets) })
}

/// Inserts `prefix`, the tokens that the model's tokenizer adds before texts, before a text's tokens if `rule` requires
/// it. Only [`Bos::Always`] does so for tokens that already begin with the prefix.
pub(crate) fn add_prefix(rule: Bos, prefix: &[u32], tokens: Vec<u32>) -> Vec<u32> {
    let is_needed = match rule {
        Bos::Auto => !tokens.starts_with(prefix),
        Bos::Always => true,
        Bos::None => false,
    };
    if is_needed { [prefix, &tokens].concat() } else { tokens }
}

/// Adds the tokens that the model's tokenizer adds before and after texts. Returns all tokens, and the range of the
/// text's own. As in transformers, a text that begins with the name of BOS has BOS twice.
pub(crate) fn add_template(codec: &dyn TextCodec, own: &[u32]) -> (Vec<u32>, Range<usize>) {
    let start = codec.prefix().len();
    ([codec.prefix(), own, codec.suffix()].concat(), start..start + own.len())
}

/// Adds the same tokens as [`add_template`], but none to a single special token: lm-evaluation-harness tokenizes the
/// names of BOS and EOS to learn their ids. Adds no second prefix to a text that begins with it, as rendered chats do.
pub(crate) fn add_template_once(codec: &dyn TextCodec, own: Vec<u32>) -> Vec<u32> {
    match own[..] {
        [token] if codec.piece(token).is_special => own,
        _ => [&add_prefix(Bos::Auto, codec.prefix(), own), codec.suffix()].concat(),
    }
}
