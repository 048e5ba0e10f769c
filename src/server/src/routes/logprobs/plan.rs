//! `QueryPlan`: the queries of a checked `/logprobs` request. Each is built when it is submitted, so a query that waits
//! takes a few bytes.

use surprisal_api::{OffsetUnit, TokenText};
use surprisal_engine::{CacheNamespace, PositionOptions, Query, SchedulingParams};

use super::encoded_pairs::{EncodedPairs, EncodedTarget};
use super::form::RequestForm;
use crate::app::App;
use crate::limits::disposal::dispose;
use crate::token_texts::TokenTexts;

/// The contexts and targets of a checked request, from which its queries and their results are made.
pub(super) struct QueryPlan {
    /// Form of the request, which determines the names of its queries in problems.
    pub(super) form: RequestForm,
    pub(super) encoded: EncodedPairs,
    /// Ids of the queries; empty if they have none.
    pub(super) ids: Vec<Option<String>>,
    /// The order in which to submit the queries; `None` for the order of the request.
    pub(super) order: Option<Vec<u32>>,
    pub(super) format: ResultFormat,
    /// Details requested for each token, in addition to its log-probability.
    pub(super) options: PositionOptions,
    pub(super) scheduling: SchedulingParams,
    pub(super) namespace: CacheNamespace,
    /// Number of tokens that admission counts for the request.
    pub(super) tokens: u32,
}

/// The contents of a result.
#[derive(Clone, Copy)]
pub(super) struct ResultFormat {
    /// `true` if each token's details are requested.
    pub(super) has_tokens: bool,
    pub(super) texts: TokenText,
    pub(super) offset_unit: OffsetUnit,
}

/// Returns the order that makes queries of one context neighbors, so that they share its cached prefix; `None` if they
/// are neighbors already.
pub(super) fn order_by_context(pairs: &[[u32; 2]]) -> Option<Vec<u32>> {
    if pairs.is_sorted_by_key(|&[context, _]| context) {
        return None;
    }
    let mut order: Vec<u32> = (0..).take(pairs.len()).collect();
    order.sort_by_key(|&index| pairs[index as usize][0]);
    Some(order)
}

impl QueryPlan {
    /// Returns the number of queries.
    pub(super) fn len(&self) -> usize {
        self.encoded.pairs.len()
    }

    /// Returns the index of the query to submit after `submitted` others.
    pub(super) fn submission(&self, submitted: usize) -> usize {
        self.order.as_ref().map_or(submitted, |order| order[submitted] as usize)
    }

    /// Builds a query.
    pub(super) fn query(&self, index: usize) -> Query {
        let context = self.context(index);
        Query {
            tokens: [context, &self.target(index).tokens].concat(),
            score_from: context.len(),
            options: self.options.clone(),
            scheduling: self.scheduling,
            namespace: self.namespace,
        }
    }

    pub(super) fn id(&self, index: usize) -> Option<&str> {
        self.ids.get(index).and_then(Option::as_deref)
    }

    /// Returns the indices of a query's context and target in the request, if the request has pairs.
    pub(super) fn pair(&self, index: usize) -> Option<[usize; 2]> {
        (self.form == RequestForm::Pairs).then(|| [self.encoded.pairs[index][0] as usize, self.target(index).index])
    }

    pub(super) fn target(&self, index: usize) -> &EncodedTarget {
        &self.encoded.targets[self.encoded.pairs[index][1] as usize]
    }

    /// Returns a decoder of the tokens that follow a query's context.
    pub(super) fn texts_after_context(&self, app: &App, index: usize) -> TokenTexts {
        TokenTexts::after(&app.codec, self.context(index))
    }

    fn context(&self, index: usize) -> &[u32] {
        &self.encoded.contexts[self.encoded.pairs[index][0] as usize]
    }
}

impl Drop for QueryPlan {
    fn drop(&mut self) {
        let EncodedPairs { contexts, targets, .. } = &mut self.encoded;
        let lists = (std::mem::take(contexts), std::mem::take(targets), std::mem::take(&mut self.ids));
        let allocations = lists.0.len() + 3 * lists.1.len() + lists.2.len();
        dispose(lists, allocations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_one_context_are_neighbors() {
        assert_eq!(order_by_context(&[[0, 1], [0, 0], [2, 5]]), None);
        assert_eq!(order_by_context(&[[1, 0], [0, 0], [1, 1], [0, 1]]), Some(vec![1, 3, 0, 2]));
    }
}
