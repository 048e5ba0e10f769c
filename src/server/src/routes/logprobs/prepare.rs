//! Preparation of a `/logprobs` request: both forms become pairs (`form`), texts become tokens (`encoded_pairs`), and
//! pairs become queries. Everything is checked before any token sequence is built.

use std::sync::Arc;

use surprisal_api::{Bos, Detail, LogprobsRequest, OffsetUnit, TokenText};
use surprisal_engine::{PositionOptions, Query, Subset};

use super::encoded_pairs::{EncodedPairs, EncodedTarget, EncodingOptions, encode_pairs};
use super::form::{RequestForm, into_pairs};
use crate::app::App;
use crate::input::validate::{check_cache_salt, check_top, check_vocabulary};
use crate::limits::client::Client;
use crate::problem::{self, Failure};
use crate::token_texts::TokenTexts;

/// A checked request, ready for the engine.
pub(super) struct LogprobsSubmission {
    /// Form of the request, which determines the names of its queries in problems.
    pub(super) form: RequestForm,
    pub(super) queries: Vec<Query>,
    /// One label per query.
    pub(super) labels: Vec<ResultLabel>,
    /// Number of tokens that admission counts for the request.
    pub(super) tokens: u32,
}

/// The parts of a query that its result needs.
pub(super) struct ResultLabel {
    pub(super) id: Option<String>,
    pub(super) pair: Option<[usize; 2]>,
    pub(super) target: Arc<EncodedTarget>,
    /// Decoder of the tokens that follow the context.
    pub(super) before: TokenTexts,
    pub(super) format: ResultFormat,
    /// Details requested for each token, in addition to its log-probability.
    pub(super) options: PositionOptions,
}

/// The contents of a result.
#[derive(Clone, Copy)]
pub(super) struct ResultFormat {
    /// `true` if each token's details are requested.
    pub(super) has_tokens: bool,
    pub(super) texts: TokenText,
    pub(super) offset_unit: OffsetUnit,
}

/// Checks a request and builds its token sequences.
pub(super) fn prepare(app: &App, request: LogprobsRequest, client: Client) -> Result<LogprobsSubmission, Failure> {
    app.check_model(request.model.as_deref())?;
    let options = parse_options(app, &request)?;
    check_bos(app, request.bos)?;
    check_cache_salt(request.cache_salt.as_deref())?;
    let scheduling = client.scheduling(request.priority)?;
    let namespace = client.namespace(request.cache_salt.as_deref());
    let format = ResultFormat {
        has_tokens: request.detail == Detail::Tokens,
        texts: request.texts.unwrap_or(TokenText::Strings),
        offset_unit: request.offset_unit,
    };
    let encoding = EncodingOptions { bos: request.bos, boundary: request.boundary, detail: request.detail };
    let mut request = into_pairs(request, app.config.max_queries)?;
    let (form, mut ids) = (request.form, std::mem::take(&mut request.ids).into_iter());
    let (EncodedPairs { contexts, pairs }, indices) = encode_pairs(app, request, encoding)?;
    let tokens = check_lengths(app, form, &contexts, &pairs, encoding.bos, options.top)?;

    let (mut queries, mut labels) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
    for ((context, target), pair) in pairs.into_iter().zip(indices) {
        let context = &contexts[context];
        let tokens = [context.as_slice(), &target.tokens].concat();
        labels.push(ResultLabel {
            id: ids.next().flatten(),
            pair: (form == RequestForm::Pairs).then_some(pair),
            before: TokenTexts::after(&app.codec, context),
            target,
            format,
            options: options.clone(),
        });
        queries.push(Query { tokens, score_from: context.len(), options: options.clone(), scheduling, namespace });
    }
    Ok(LogprobsSubmission { form, queries, labels, tokens })
}

/// Rejects `"bos": "always"` if the model's tokenizer adds no BOS.
fn check_bos(app: &App, rule: Bos) -> Result<(), Failure> {
    if rule == Bos::Always && app.codec.prefix().is_empty() { Err(problem::no_bos()) } else { Ok(()) }
}

/// Returns the details requested for each token, in addition to its log-probability.
fn parse_options(app: &App, request: &LogprobsRequest) -> Result<PositionOptions, Failure> {
    let &LogprobsRequest { top, rank, entropy, ref subset, detail, .. } = request;
    let fields = [
        ("top", top > 0),
        ("rank", rank),
        ("entropy", entropy),
        ("subset", subset.is_some()),
        ("texts", request.texts.is_some_and(|texts| texts != TokenText::None)),
    ];
    for (field, is_requested) in fields {
        if is_requested && detail == Detail::Sum {
            return Err(problem::needs_tokens(field));
        }
    }
    check_top("top", top)?;
    let subset = subset.as_deref().map(|ids| check_subset(app, ids)).transpose()?;
    Ok(PositionOptions { top, rank, entropy, subset })
}

fn check_subset(app: &App, ids: &[u32]) -> Result<Arc<Subset>, Failure> {
    let vocab_size = app.model().vocab_size;
    if ids.is_empty() || ids.len() > vocab_size {
        return Err(problem::subset_size(ids.len(), vocab_size));
    }
    check_vocabulary(ids, vocab_size, "subset", None)?;
    Ok(Arc::new(Subset::new(ids)))
}

/// Checks that each sequence has a token to condition on and is not too long, and that all sequences together fit the
/// token limit. Returns the number of tokens that admission counts for the request; an alternative counts as a token,
/// because it takes as much memory.
fn check_lengths(
    app: &App,
    form: RequestForm,
    contexts: &[Vec<u32>],
    pairs: &[(usize, Arc<EncodedTarget>)],
    rule: Bos,
    top: u16,
) -> Result<u32, Failure> {
    let limit = app.model().max_length;
    let mut total = 0_usize;
    for (query, (context, target)) in pairs.iter().enumerate() {
        if contexts[*context].is_empty() {
            let field = form.context_field(*context);
            let is_joined = target.overlap.is_some_and(|overlap| overlap > 0);
            return Err(problem::nothing_given(query, field, rule, is_joined));
        }
        let length = contexts[*context].len().saturating_add(target.tokens.len());
        if length > limit {
            return Err(problem::sequence_too_long(query, form.query_field(query), length, limit));
        }
        let alternatives = target.tokens.len().saturating_mul(top.into());
        total = total.saturating_add(length).saturating_add(alternatives);
    }
    app.admission.check_tokens(total)
}
