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
    /// One id per query of the first form; empty in the second form.
    pub(super) ids: Vec<Option<String>>,
    pub(super) contexts: Vec<Text>,
    pub(super) targets: Vec<Text>,
    /// Context index and target index of each pair.
    pub(super) pairs: Vec<[usize; 2]>,
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
