//! Token sequences of the contexts and targets of a `/logprobs` request.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use surprisal_api::{Bos, Boundary, Detail, Text};

use super::form::{PairList, PairRequest, RequestForm};
use crate::app::App;
use crate::codec::TextCodec;
use crate::input::encode::{EncodedText, add_prefix, check_text, encode, encode_continuation};
use crate::input::validate::check_vocabulary;
use crate::problem::{self, Failure};
use crate::token_texts::divide;

/// A target's tokens and, if each token's details are requested, its text.
#[derive(Debug)]
pub(super) struct EncodedTarget {
    /// Index of the target in the request.
    pub(super) index: usize,
    pub(super) tokens: Vec<u32>,
    /// Text of the tokens: the target, preceded by `overlap` bytes of the context. `None` if the target was sent as
    /// token ids, or if only the sum is requested.
    pub(super) text: Option<String>,
    /// Byte range of each token in `text`.
    pub(super) offsets: Option<Vec<[usize; 2]>>,
    /// Number of the context's bytes in the first token; `None` unless the boundary is joint.
    pub(super) overlap: Option<usize>,
}

/// The encoded texts of a request, and the pairs to score.
pub(super) struct EncodedPairs {
    /// Tokens of each context, including the tokenizer's prefix.
    pub(super) contexts: Vec<Vec<u32>>,
    /// The different targets. A target of the request has an entry for each [`Place`] at which it occurs.
    pub(super) targets: Vec<EncodedTarget>,
    /// Each pair's indices in `contexts` and in `targets`.
    pub(super) pairs: Vec<[u32; 2]>,
}

/// The options that determine the tokens of a request.
#[derive(Clone, Copy)]
pub(super) struct EncodingOptions {
    pub(super) bos: Bos,
    pub(super) boundary: Boundary,
    pub(super) detail: Detail,
}

/// Encodes all contexts and targets. Each text is tokenized once, however many pairs it is in. Stops when the encoded
/// texts alone exceed the limit on tokens in flight, because tokens take more memory than text.
pub(super) fn encode_pairs(app: &App, request: PairRequest, options: EncodingOptions) -> Result<EncodedPairs, Failure> {
    let PairRequest { form, contexts, targets, pairs, .. } = request;
    let encoded = match options.boundary {
        Boundary::Separate => {
            let contexts = encode_contexts(app, form, contexts, options.bos)?;
            let targets = Targets { app, form, texts: &targets, detail: options.detail };
            let (targets, pairs) = targets.encode(&contexts, &pairs)?;
            EncodedPairs { contexts, targets, pairs }
        }
        Boundary::Joint if form == RequestForm::Pairs => return Err(problem::joint_pairs()),
        Boundary::Joint => encode_jointly(app, form, contexts.into_iter().zip(targets), options)?,
    };
    for target in &encoded.targets {
        if target.tokens.is_empty() {
            return Err(problem::empty_target(form.target_field(target.index), form.query_of_text(target.index)));
        }
    }
    Ok(encoded)
}

/// Returns an index as 32 bits. Lists of a request, and of its pairs, are far shorter than 2^32.
fn compact(index: usize) -> Result<u32, Failure> {
    u32::try_from(index).map_err(|_| problem::internal())
}

fn encode_contexts(app: &App, form: RequestForm, contexts: Vec<Text>, rule: Bos) -> Result<Vec<Vec<u32>>, Failure> {
    let mut encoded_contexts = Vec::with_capacity(contexts.len());
    let mut total = 0;
    for (index, text) in contexts.into_iter().enumerate() {
        let encoded = encode(app, text, Detail::Sum, &form.context_field(index), form.query_of_text(index))?;
        total += encoded.tokens.len();
        app.admission.check_tokens(total)?;
        encoded_contexts.push(add_prefix(rule, app.codec.prefix(), encoded.tokens));
    }
    Ok(encoded_contexts)
}

/// The targets of a request with separate boundaries.
struct Targets<'a> {
    app: &'a App,
    form: RequestForm,
    texts: &'a [Text],
    detail: Detail,
}

impl Targets<'_> {
    /// Encodes the target of each pair. Returns the different targets, and each pair's indices. A target's tokens
    /// depend on its context only through its place.
    fn encode(&self, contexts: &[Vec<u32>], pairs: &PairList) -> Result<(Vec<EncodedTarget>, Vec<[u32; 2]>), Failure> {
        let codec = self.app.codec.as_ref();
        let places: Vec<Place> = contexts.iter().map(|context| Place::after(codec, context)).collect();
        let mut known: HashMap<(usize, Place), u32> = HashMap::new();
        let (mut targets, mut encoded) = (Vec::new(), Vec::with_capacity(pairs.len()));
        let mut total = 0;
        for [context, target] in pairs.iter() {
            let target = match known.entry((target, places[context])) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    let target = self.encode_target(target, places[context])?;
                    total += target.tokens.len();
                    self.app.admission.check_tokens(total)?;
                    targets.push(target);
                    *entry.insert(compact(targets.len() - 1)?)
                }
            };
            encoded.push([compact(context)?, target]);
        }
        Ok((targets, encoded))
    }

    fn encode_target(&self, index: usize, place: Place) -> Result<EncodedTarget, Failure> {
        let (field, query) = (self.form.target_field(index), self.form.query_of_text(index));
        let text = self.texts[index].clone();
        let kept = match &text {
            Text::String(text) if self.detail == Detail::Tokens => Some(text.clone()),
            _ => None,
        };
        let EncodedText { tokens, offsets } = match place {
            Place::Beginning => encode(self.app, text, self.detail, &field, query),
            Place::Continuation { special } => encode_continuation(self.app, special, text, self.detail, &field, query),
        }?;
        Ok(EncodedTarget { index, tokens, text: kept, offsets, overlap: None })
    }
}

/// The place of a target, as far as its tokens depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// The beginning of the text: at most the tokens that the tokenizer adds precede it.
    Beginning,
    /// After other text or, if `special` is set, after a special token.
    Continuation { special: Option<u32> },
}

impl Place {
    /// Returns the place after a context.
    fn after(codec: &dyn TextCodec, context: &[u32]) -> Self {
        if codec.encodes_continuations_alike() {
            return Self::Continuation { special: None };
        }
        let text = context.strip_prefix(codec.prefix()).unwrap_or(context);
        match text.last() {
            None => Self::Beginning,
            Some(&last) => Self::Continuation { special: Some(last).filter(|&last| codec.piece(last).is_special) },
        }
    }
}

/// Encodes each context and target as one text, and splits it before the first token that contains a part of the
/// target.
fn encode_jointly(
    app: &App,
    form: RequestForm,
    texts: impl Iterator<Item = (Text, Text)>,
    options: EncodingOptions,
) -> Result<EncodedPairs, Failure> {
    let mut encoded = EncodedPairs { contexts: Vec::new(), targets: Vec::new(), pairs: Vec::new() };
    let mut total = 0;
    for (index, (context, target)) in texts.enumerate() {
        let is_empty_context = context.is_empty();
        let context = match context {
            Text::String(context) => context,
            Text::Tokens(_) if is_empty_context => String::new(),
            Text::Tokens(_) => return Err(problem::joint_tokens(index, form.context_field(index))),
        };
        let Text::String(target) = target else {
            return Err(problem::joint_tokens(index, form.target_field(index)));
        };
        if target.is_empty() {
            return Err(problem::empty_target(form.target_field(index), Some(index)));
        }
        let (context, target) = split_joint_text(app, &context, &target, &form.query_field(index), index)?;
        total += context.len() + target.tokens.len();
        app.admission.check_tokens(total)?;
        encoded.contexts.push(add_prefix(options.bos, app.codec.prefix(), context));
        encoded.targets.push(target);
        encoded.pairs.push([compact(index)?; 2]);
    }
    Ok(encoded)
}

/// Returns the context's tokens and the target.
fn split_joint_text(
    app: &App,
    context: &str,
    target: &str,
    field: &str,
    query: usize,
) -> Result<(Vec<u32>, EncodedTarget), Failure> {
    let mut text = [context, target].concat();
    check_text(app, &text, field, Some(query))?;
    let encoded = app.codec.encode_with_offsets(&text);
    let (mut tokens, mut offsets) =
        encoded.map_err(|reason| problem::text_not_encodable(field, Some(query), &reason))?;
    check_vocabulary(&tokens, app.model().vocab_size, field, Some(query))?;
    let texts = divide(app.codec.as_ref(), &text, &tokens, || offsets.clone());
    let (mut split, mut start, mut end) = (0, 0, 0);
    for (index, token_text) in texts.iter().enumerate() {
        end += token_text.len();
        if end > context.len() {
            break;
        }
        // A token without text belongs to the character that a later token completes.
        if !token_text.is_empty() {
            (split, start) = (index + 1, end);
        }
    }
    let target_tokens = tokens.split_off(split);
    let mut target_offsets = offsets.split_off(split);
    for offset in target_offsets.as_flattened_mut() {
        *offset = offset.saturating_sub(start);
    }
    let target = EncodedTarget {
        index: query,
        tokens: target_tokens,
        text: Some(text.split_off(start)),
        offsets: Some(target_offsets),
        overlap: Some(context.len() - start),
    };
    Ok((tokens, target))
}
