//! From a request of `/logprobs` to token sequences: both forms become pairs, texts become tokens, pairs become queries.
//! Everything is checked before a sequence is built.

use std::sync::Arc;

use surprisal_api::{Bos, Detail, LogprobsRequest, Pairs, QuerySpec, Text};
use surprisal_engine::{MAX_TOP, PositionOptions, Query, Subset};

use crate::App;
use crate::client::Client;
use crate::problem::{self, Failure};

/// A request that the engine can answer.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// How the request calls its queries, for problems.
    pub(crate) form: Form,
    pub(crate) queries: Vec<Query>,
    /// One a query.
    pub(crate) labels: Vec<Label>,
    /// Tokens of all sequences together.
    pub(crate) tokens: u32,
}

/// What an answer repeats of its question.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) id: Option<String>,
    pub(crate) pair: Option<[usize; 2]>,
    /// Where each token's log-probability is asked for.
    pub(crate) target: Option<Encoded>,
    /// What else is asked of each token.
    pub(crate) extras: PositionOptions,
}

/// A text's tokens.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) tokens: Vec<u32>,
    /// Each token's bytes in a text that was a string, where they are asked for.
    pub(crate) offsets: Option<Vec<[usize; 2]>>,
}

/// Which of the two forms a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Queries,
    Pairs,
}

/// Both forms in one shape.
struct Asked {
    form: Form,
    /// In the first form, one a query.
    ids: Vec<Option<String>>,
    contexts: Vec<Text>,
    targets: Vec<Text>,
    /// Indices of a context and a target.
    pairs: Vec<[usize; 2]>,
}

/// Checks a request and makes token sequences of it.
///
/// Each context and each target is tokenised once, apart from the other: a context is the same tokens whatever follows.
pub(crate) fn prepare(app: &App, request: LogprobsRequest, client: Client) -> Result<Prepared, Failure> {
    app.check_model(request.model.as_deref())?;
    let extras = extras(app, &request)?;
    check_bos(app, request.bos)?;
    let (rule, detail, turn) = (request.bos, request.detail, client.turn(request.priority));
    let Asked { form, ids, contexts, targets, pairs } = asked(request, app.config.max_queries)?;
    let context = |(index, text)| {
        let encoded = encode(app, text, Detail::Sum, &form.context_field(index), form.query_of_text(index))?;
        Ok(begin(rule, app.codec.bos(), encoded.tokens))
    };
    let contexts: Vec<_> = contexts.into_iter().enumerate().map(context).collect::<Result<_, _>>()?;
    let target = |(index, text)| {
        let (field, query) = (form.target_field(index), form.query_of_text(index));
        let encoded = encode_target(app, text, detail, &field, query)?;
        if encoded.tokens.is_empty() { Err(problem::empty_target(field, query)) } else { Ok(encoded) }
    };
    let targets: Vec<_> = targets.into_iter().enumerate().map(target).collect::<Result<_, _>>()?;
    let tokens = check_lengths(app, form, &contexts, &targets, &pairs, rule, extras.top)?;
    let query = |&[context, target]: &[usize; 2]| {
        let context = &contexts[context];
        let tokens = [context.as_slice(), &targets[target].tokens].concat();
        Query { tokens, score_from: context.len(), options: extras.clone(), scheduling: turn }
    };
    let mut ids = ids.into_iter();
    let label = |&pair: &[usize; 2]| Label {
        id: ids.next().flatten(),
        pair: (form == Form::Pairs).then_some(pair),
        target: (detail == Detail::Tokens).then(|| targets[pair[1]].clone()),
        extras: extras.clone(),
    };
    Ok(Prepared { form, queries: pairs.iter().map(query).collect(), labels: pairs.iter().map(label).collect(), tokens })
}

/// Refuses to add what the model does not have.
fn check_bos(app: &App, rule: Bos) -> Result<(), Failure> {
    if rule == Bos::Always && app.codec.bos().is_none() { Err(problem::no_bos()) } else { Ok(()) }
}

/// What is asked of each token beside its log-probability.
fn extras(app: &App, request: &LogprobsRequest) -> Result<PositionOptions, Failure> {
    let &LogprobsRequest { top, rank, entropy, ref subset, detail, .. } = request;
    let asked = [("top", top > 0), ("rank", rank), ("entropy", entropy), ("subset", subset.is_some())];
    for (field, asked) in asked {
        if asked && detail == Detail::Sum {
            return Err(problem::needs_tokens(field));
        }
    }
    check_top("top", top)?;
    let subset = subset.as_deref().map(|ids| check_subset(app, ids)).transpose()?;
    Ok(PositionOptions { top, rank, entropy, subset })
}

fn check_subset(app: &App, ids: &[u32]) -> Result<Arc<Subset>, Failure> {
    let size = app.model().vocab_size;
    if ids.is_empty() || ids.len() > size {
        return Err(problem::subset_size(ids.len(), size));
    }
    check_vocabulary(ids, size, "subset", None)?;
    Ok(Arc::new(Subset::new(ids)))
}

/// Refuses more alternatives than are listed.
pub(crate) fn check_top(field: &str, top: u16) -> Result<(), Failure> {
    check_most(field, top.into(), MAX_TOP.into())
}

pub(crate) fn check_most(field: &str, count: usize, most: usize) -> Result<(), Failure> {
    if count > most { Err(problem::not_offered(field, count, most)) } else { Ok(()) }
}

fn asked(request: LogprobsRequest, max_queries: usize) -> Result<Asked, Failure> {
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

fn from_queries(queries: Vec<QuerySpec>, max_queries: usize) -> Result<Asked, Failure> {
    let count = queries.len();
    check_count("queries", count, max_queries)?;
    let mut ids = Vec::with_capacity(count);
    let split = |QuerySpec { id, context, target }| {
        ids.push(id);
        (context, target)
    };
    let (contexts, targets) = queries.into_iter().map(split).unzip();
    Ok(Asked { form: Form::Queries, ids, contexts, targets, pairs: (0..count).map(|index| [index, index]).collect() })
}

fn from_pairs(contexts: Vec<Text>, targets: Vec<Text>, pairs: Pairs, max_queries: usize) -> Result<Asked, Failure> {
    check_count("contexts", contexts.len(), usize::MAX)?;
    check_count("targets", targets.len(), usize::MAX)?;
    let lists = [("contexts", contexts.len()), ("targets", targets.len())];
    let pairs = match pairs {
        Pairs::All => {
            check_count("pairs", contexts.len().saturating_mul(targets.len()), max_queries)?;
            let row = |context| (0..targets.len()).map(move |target| [context, target]);
            (0..contexts.len()).flat_map(row).collect()
        }
        Pairs::List(pairs) => pairs,
    };
    check_count("pairs", pairs.len(), max_queries)?;
    for (number, pair) in pairs.iter().enumerate() {
        for (part, (&index, (list, length))) in pair.iter().zip(lists).enumerate() {
            if index >= length {
                return Err(problem::pair_out_of_range(number, part, list, index, length));
            }
        }
    }
    Ok(Asked { form: Form::Pairs, ids: Vec::new(), contexts, targets, pairs })
}

pub(crate) fn check_count(field: &str, count: usize, limit: usize) -> Result<(), Failure> {
    match count {
        0 => Err(problem::no_queries(field)),
        count if count > limit => Err(problem::too_many_queries(field, count, limit)),
        _ => Ok(()),
    }
}

impl Form {
    /// The path of a query as a whole.
    pub(crate) fn query_field(self, index: usize) -> String {
        match self {
            Form::Queries => format!("queries[{index}]"),
            Form::Pairs => format!("pairs[{index}]"),
        }
    }

    fn context_field(self, index: usize) -> String {
        match self {
            Form::Queries => format!("queries[{index}].context"),
            Form::Pairs => format!("contexts[{index}]"),
        }
    }

    fn target_field(self, index: usize) -> String {
        match self {
            Form::Queries => format!("queries[{index}].target"),
            Form::Pairs => format!("targets[{index}]"),
        }
    }

    /// The query that the text of this index belongs to, if it belongs to one.
    fn query_of_text(self, index: usize) -> Option<usize> {
        (self == Form::Queries).then_some(index)
    }
}

/// A text begins with BOS if it is to and the model's own rule has one; twice only by [`Bos::Always`].
pub(crate) fn begin(rule: Bos, bos: Option<u32>, mut tokens: Vec<u32>) -> Vec<u32> {
    let wanted = |bos: &u32| match rule {
        Bos::Auto => tokens.first() != Some(bos),
        Bos::Always => true,
        Bos::None => false,
    };
    if let Some(bos) = bos.filter(wanted) {
        tokens.insert(0, bos);
    }
    tokens
}

/// Token ids of a text, all of them in the vocabulary; with their offsets where tokens are asked for.
pub(crate) fn encode(
    app: &App,
    text: Text,
    detail: Detail,
    field: &str,
    query: Option<usize>,
) -> Result<Encoded, Failure> {
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
    Ok(Encoded { tokens, offsets })
}

/// As [`encode`], of a text that goes on from another: the space that it begins with is the one that the tokenizer puts there.
fn encode_target(app: &App, text: Text, detail: Detail, field: &str, query: Option<usize>) -> Result<Encoded, Failure> {
    let rest = match &text {
        Text::String(text) if app.codec.adds_space() => text.strip_prefix(' ').filter(|rest| !rest.is_empty()),
        _ => None,
    };
    let Some(rest) = rest else {
        return encode(app, text, detail, field, query);
    };
    let mut encoded = encode(app, Text::from(rest), detail, field, query)?;
    for [from, to] in encoded.offsets.iter_mut().flatten() {
        // The space is the first token's.
        *from += usize::from(*from > 0);
        *to += 1;
    }
    Ok(encoded)
}

/// Refuses ids that the model does not have.
pub(crate) fn check_vocabulary(tokens: &[u32], size: usize, field: &str, query: Option<usize>) -> Result<(), Failure> {
    match tokens.iter().position(|&token| token as usize >= size) {
        Some(at) => Err(problem::token_out_of_range(format!("{field}[{at}]"), query, tokens[at], size)),
        None => Ok(()),
    }
}

/// The tokens of all sequences, if each has something to condition on and fits, and all together can ever be admitted. An
/// alternative counts as a token: it takes as much room.
fn check_lengths(
    app: &App,
    form: Form,
    contexts: &[Vec<u32>],
    targets: &[Encoded],
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
    app.admission.check(total)
}
