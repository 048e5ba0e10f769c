//! The two forms of a `/logprobs` request, as pairs of a context and a target.

use surprisal_api::{LogprobsRequest, Pairs, QuerySpec, Text};

use crate::input::validate::check_query_count;
use crate::problem::{self, Failure};

/// One of the two forms of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestForm {
    Queries,
    Pairs,
}

/// A request of either form, as pairs of a context and a target.
pub(super) struct PairRequest {
    pub(super) form: RequestForm,
    /// One id per query of the first form; empty in the second form, and if no query has an id.
    pub(super) ids: Vec<Option<String>>,
    pub(super) contexts: Vec<Text>,
    pub(super) targets: Vec<Text>,
    pub(super) pairs: PairList,
}

/// The context index and the target index of each pair.
pub(super) enum PairList {
    /// Each context with the target of the same index.
    Same(usize),
    /// Each of `contexts` with each of `targets`, contexts outermost.
    All {
        contexts: usize,
        targets: usize,
    },
    Listed(Vec<[usize; 2]>),
}

impl PairList {
    /// Returns the number of pairs.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Same(count) => *count,
            Self::All { contexts, targets } => contexts.saturating_mul(*targets),
            Self::Listed(pairs) => pairs.len(),
        }
    }

    /// Returns the context index and the target index of a pair.
    pub(super) fn get(&self, index: usize) -> [usize; 2] {
        match self {
            Self::Same(_) => [index, index],
            Self::All { targets, .. } => [index / targets, index % targets],
            Self::Listed(pairs) => pairs[index],
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = [usize; 2]> {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// Converts a request of either form into pairs.
pub(super) fn into_pairs(request: LogprobsRequest, max_queries: usize) -> Result<PairRequest, Failure> {
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
    if ids.iter().all(Option::is_none) {
        ids = Vec::new();
    }
    Ok(PairRequest { form: RequestForm::Queries, ids, contexts, targets, pairs: PairList::Same(count) })
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
        Pairs::All => PairList::All { contexts: contexts.len(), targets: targets.len() },
        Pairs::List(pairs) => PairList::Listed(pairs),
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

    pub(super) fn context_field(self, index: usize) -> String {
        match self {
            Self::Queries => format!("queries[{index}].context"),
            Self::Pairs => format!("contexts[{index}]"),
        }
    }

    pub(super) fn target_field(self, index: usize) -> String {
        match self {
            Self::Queries => format!("queries[{index}].target"),
            Self::Pairs => format!("targets[{index}]"),
        }
    }

    /// Returns the query that this context or target belongs to; `None` for pairs, where several queries may share it.
    pub(super) fn query_of_text(self, index: usize) -> Option<usize> {
        (self == Self::Queries).then_some(index)
    }
}
