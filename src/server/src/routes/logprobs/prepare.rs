//! Preparation of a `/logprobs` request: both forms become pairs (`form`), texts become tokens (`encoded_pairs`), and
//! everything is checked. The queries are built later, one by one (`plan`).

use std::sync::Arc;

use surprisal_api::{Bos, Detail, LogprobsRequest, TokenText};
use surprisal_engine::{CacheNamespace, PositionOptions, SchedulingParams, Subset};

use super::encoded_pairs::{EncodedPairs, EncodingOptions, encode_pairs};
use super::form::{PairRequest, RequestForm, into_pairs};
use super::plan::{QueryPlan, ResultFormat, order_by_context};
use crate::app::App;
use crate::input::validate::{check_cache_salt, check_top, check_vocabulary};
use crate::limits::client::Client;
use crate::limits::turns::JobSize;
use crate::problem::{self, Failure};

/// The number of bytes of a body that take about as long to process as a pair, apart from its texts.
const PAIR_TIME_BYTES: usize = 16;

/// The memory for encoding a pair, in bytes, apart from its texts.
const PAIR_BYTES: usize = 64;

/// A request whose options and counts have been checked.
pub(super) struct CheckedRequest {
    request: PairRequest,
    encoding: EncodingOptions,
    format: ResultFormat,
    options: PositionOptions,
    scheduling: SchedulingParams,
    namespace: CacheNamespace,
}

impl CheckedRequest {
    /// Returns the size of the job that encodes the pairs, in addition to that of the body.
    pub(super) fn size(&self) -> JobSize {
        let pairs = self.request.pairs.len();
        JobSize { bytes: pairs.saturating_mul(PAIR_TIME_BYTES), memory: pairs.saturating_mul(PAIR_BYTES) }
    }
}

/// Checks the options of a request and the number of its queries, which takes little time however many pairs there are.
pub(super) fn check(app: &App, request: LogprobsRequest, client: Client) -> Result<CheckedRequest, Failure> {
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
    let request = into_pairs(request, app.config.max_queries)?;
    Ok(CheckedRequest { request, encoding, format, options, scheduling, namespace })
}

/// Encodes the texts of a request and checks the lengths of its queries.
pub(super) fn prepare(app: &App, checked: CheckedRequest) -> Result<QueryPlan, Failure> {
    let CheckedRequest { mut request, encoding, format, options, scheduling, namespace } = checked;
    let (form, ids) = (request.form, std::mem::take(&mut request.ids));
    let encoded = encode_pairs(app, request, encoding)?;
    let tokens = check_lengths(app, form, &encoded, encoding.bos, options.top)?;
    let order = order_by_context(&encoded.pairs);
    Ok(QueryPlan { form, encoded, ids, order, format, options, scheduling, namespace, tokens })
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
fn check_lengths(app: &App, form: RequestForm, encoded: &EncodedPairs, rule: Bos, top: u16) -> Result<u32, Failure> {
    let limit = app.model().max_length;
    let mut total = 0_usize;
    for (query, pair) in encoded.pairs.iter().enumerate() {
        let [context, target] = pair.map(|index| index as usize);
        let (given, target) = (&encoded.contexts[context], &encoded.targets[target]);
        if given.is_empty() {
            let field = form.context_field(context);
            let is_joined = target.overlap.is_some_and(|overlap| overlap > 0);
            return Err(problem::nothing_given(query, field, rule, is_joined));
        }
        let length = given.len().saturating_add(target.tokens.len());
        if length > limit {
            return Err(problem::sequence_too_long(query, form.query_field(query), length, limit));
        }
        let alternatives = target.tokens.len().saturating_mul(top.into());
        total = total.saturating_add(length).saturating_add(alternatives);
    }
    app.admission.check_tokens(total)
}
