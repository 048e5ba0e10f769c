//! Preparation of a `/logprobs` request: both forms become pairs, texts become tokens, and pairs become queries.
//! Everything is checked before any token sequence is built.

use std::sync::Arc;

use surprisal_api::{Bos, Detail, LogprobsRequest, Pairs, QuerySpec, Text};
use surprisal_engine::{PositionOptions, Query, Subset};

use crate::app::App;
use crate::input::encode::{EncodedText, encode, encode_target, prepend_bos};
use crate::input::validate::{check_query_count, check_top, check_vocabulary};
use crate::limits::client::Client;
use crate::problem::{self, Failure};

/// A checked request, ready for the engine.
#[derive(Debug)]
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
#[derive(Debug)]
pub(super) struct ResultLabel {
    pub(super) id: Option<String>,
    pub(super) pair: Option<[usize; 2]>,
    /// Target of the query; `None` unless each token's log-probability is requested.
    pub(super) target: Option<EncodedText>,
    /// Details requested for each token, in addition to its log-probability.
    pub(super) options: PositionOptions,
}

/// One of the two forms of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestForm {
    Queries,
    Pairs,
}

/// A request of either form, as pairs of a context and a target.
struct PairRequest {
    form: RequestForm,
    /// One id per query of the first form; empty in the second form.
    ids: Vec<Option<String>>,
    contexts: Vec<Text>,
    targets: Vec<Text>,
    /// Context index and target index of each pair.
    pairs: Vec<[usize; 2]>,
}

/// Checks a request and builds its token sequences.
///
/// Each context and each target is tokenized once and separately, so a context has the same tokens no matter what
/// follows it.
pub(super) fn prepare(app: &App, request: LogprobsRequest, client: Client) -> Result<LogprobsSubmission, Failure> {
    app.check_model(request.model.as_deref())?;
    let options = parse_options(app, &request)?;
    check_bos(app, request.bos)?;
    let (bos, detail, scheduling) = (request.bos, request.detail, client.scheduling(request.priority));
    let PairRequest { form, ids, contexts, targets, pairs } = into_pairs(request, app.config.max_queries)?;
    let contexts = encode_contexts(app, form, contexts, bos)?;
    let targets = encode_targets(app, form, targets, detail)?;
    let tokens = check_lengths(app, form, &contexts, &targets, &pairs, bos, options.top)?;

    let mut ids = ids.into_iter();
    let (mut queries, mut labels) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
    for pair in pairs {
        let (context, target) = (&contexts[pair[0]], &targets[pair[1]]);
        let tokens = [context.as_slice(), &target.tokens].concat();
        queries.push(Query { tokens, score_from: context.len(), options: options.clone(), scheduling });
        labels.push(ResultLabel {
            id: ids.next().flatten(),
            pair: (form == RequestForm::Pairs).then_some(pair),
            target: (detail == Detail::Tokens).then(|| target.clone()),
            options: options.clone(),
        });
    }
    Ok(LogprobsSubmission { form, queries, labels, tokens })
}

/// Rejects `"bos": "always"` if the model's tokenizer adds no BOS.
fn check_bos(app: &App, rule: Bos) -> Result<(), Failure> {
    if rule == Bos::Always && app.codec.bos().is_none() { Err(problem::no_bos()) } else { Ok(()) }
}

/// Returns the details requested for each token, in addition to its log-probability.
fn parse_options(app: &App, request: &LogprobsRequest) -> Result<PositionOptions, Failure> {
    let &LogprobsRequest { top, rank, entropy, ref subset, detail, .. } = request;
    let fields = [("top", top > 0), ("rank", rank), ("entropy", entropy), ("subset", subset.is_some())];
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

/// Converts a request of either form into pairs.
fn into_pairs(request: LogprobsRequest, max_queries: usize) -> Result<PairRequest, Failure> {
    let LogprobsRequest { queries, contexts, targets, pairs, .. } = request;
    match (queries, contexts, targets, pairs) {
        (Some(queries), None, None, None) => from_queries(queries, max_queries),
        (Some(_), Some(_), ..) => Err(problem::mixed_forms("contexts")),
        (Some(_), _, Some(_), _) => Err(problem::mixed_forms("targets")),
        (Some(_), ..) => Err(problem::mixed_forms("pairs")),
        (None, Some(contexts), Some(targets), pairs) => {
            from_pairs(contexts, targets, pairs.unwrap_or(Pairs::All), max_queries)
        }
        (None, Some(_), None, _) => Err(problem::incomplete_pairs("contexts", "targets")),
        (None, None, Some(_), _) => Err(problem::incomplete_pairs("targets", "contexts")),
        (None, None, None, Some(_)) => Err(problem::incomplete_pairs("pairs", "contexts")),
        (None, None, None, None) => Err(problem::missing_form()),
    }
}

fn from_queries(queries: Vec<QuerySpec>, max_queries: usize) -> Result<PairRequest, Failure> {
    let count = queries.len();
    check_query_count("queries", count, max_queries)?;
    let (mut ids, mut contexts, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for QuerySpec { id, context, target } in queries {
        ids.push(id);
        contexts.push(context);
        targets.push(target);
    }
    let pairs = (0..count).map(|index| [index, index]).collect();
    Ok(PairRequest { form: RequestForm::Queries, ids, contexts, targets, pairs })
}

fn from_pairs(
    contexts: Vec<Text>,
    targets: Vec<Text>,
    pairs: Pairs,
    max_queries: usize,
) -> Result<PairRequest, Failure> {
    check_query_count("contexts", contexts.len(), usize::MAX)?;
    check_query_count("targets", targets.len(), usize::MAX)?;
    let pairs = match pairs {
        Pairs::All => {
            check_query_count("pairs", contexts.len().saturating_mul(targets.len()), max_queries)?;
            let row = |context| (0..targets.len()).map(move |target| [context, target]);
            (0..contexts.len()).flat_map(row).collect()
        }
        Pairs::List(pairs) => pairs,
    };
    check_query_count("pairs", pairs.len(), max_queries)?;
    let lists = [("contexts", contexts.len()), ("targets", targets.len())];
    for (number, pair) in pairs.iter().enumerate() {
        for (side, (&index, (list, length))) in pair.iter().zip(lists).enumerate() {
            if index >= length {
                return Err(problem::pair_out_of_range(number, side, list, index, length));
            }
        }
    }
    Ok(PairRequest { form: RequestForm::Pairs, ids: Vec::new(), contexts, targets, pairs })
}

impl RequestForm {
    /// Returns the path of a query in the request.
    pub(super) fn query_field(self, index: usize) -> String {
        match self {
            Self::Queries => format!("queries[{index}]"),
            Self::Pairs => format!("pairs[{index}]"),
        }
    }

    fn context_field(self, index: usize) -> String {
        match self {
            Self::Queries => format!("queries[{index}].context"),
            Self::Pairs => format!("contexts[{index}]"),
        }
    }

    fn target_field(self, index: usize) -> String {
        match self {
            Self::Queries => format!("queries[{index}].target"),
            Self::Pairs => format!("targets[{index}]"),
        }
    }

    /// Returns the query that this context or target belongs to; `None` for pairs, where several queries may share it.
    fn query_of_text(self, index: usize) -> Option<usize> {
        (self == Self::Queries).then_some(index)
    }
}

fn encode_contexts(app: &App, form: RequestForm, contexts: Vec<Text>, rule: Bos) -> Result<Vec<Vec<u32>>, Failure> {
    let mut encoded_contexts = Vec::with_capacity(contexts.len());
    for (index, text) in contexts.into_iter().enumerate() {
        let encoded = encode(app, text, Detail::Sum, &form.context_field(index), form.query_of_text(index))?;
        encoded_contexts.push(prepend_bos(rule, app.codec.bos(), encoded.tokens));
    }
    Ok(encoded_contexts)
}

fn encode_targets(
    app: &App,
    form: RequestForm,
    targets: Vec<Text>,
    detail: Detail,
) -> Result<Vec<EncodedText>, Failure> {
    let mut encoded_targets = Vec::with_capacity(targets.len());
    for (index, text) in targets.into_iter().enumerate() {
        let (field, query) = (form.target_field(index), form.query_of_text(index));
        let encoded = encode_target(app, text, detail, &field, query)?;
        if encoded.tokens.is_empty() {
            return Err(problem::empty_target(field, query));
        }
        encoded_targets.push(encoded);
    }
    Ok(encoded_targets)
}

/// Checks that each sequence has a token to condition on and is not too long, and that all sequences together fit the
/// token limit. Returns the number of tokens that admission counts for the request; an alternative counts as a token,
/// because it takes as much memory.
fn check_lengths(
    app: &App,
    form: RequestForm,
    contexts: &[Vec<u32>],
    targets: &[EncodedText],
    pairs: &[[usize; 2]],
    rule: Bos,
    top: u16,
) -> Result<u32, Failure> {
    let limit = app.model().max_length;
    let mut total = 0_usize;
    for (query, &[context, target]) in pairs.iter().enumerate() {
        if contexts[context].is_empty() {
            return Err(problem::nothing_given(query, form.context_field(context), rule));
        }
        let length = contexts[context].len().saturating_add(targets[target].tokens.len());
        if length > limit {
            return Err(problem::sequence_too_long(query, form.query_field(query), length, limit));
        }
        let alternatives = targets[target].tokens.len().saturating_mul(top.into());
        total = total.saturating_add(length).saturating_add(alternatives);
    }
    app.admission.check_tokens(total)
}
