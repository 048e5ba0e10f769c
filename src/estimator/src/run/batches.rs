//! Batches: the plan's queries that go to the source in one call.

use std::ops::Range;

use crate::plan::PlannedQuery;
use crate::source::group_within_limits;

/// Tokens in one call, unless a single query or family has more.
const BATCH_TOKENS: usize = 8 * 1024;

/// The most tokens of a family that goes in one call, so that a document is scored before what continues it.
const FAMILY_TOKENS: usize = 32 * 1024;

/// Divides queries into consecutive ranges, one for each call. A family (a document and what continues it) is divided only if it is
/// large; small families share a call.
pub(crate) fn batches(queries: &[PlannedQuery]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    // Tokens of the last range; `None` if no other family may join it.
    let mut open: Option<usize> = None;
    let mut start = 0;
    for family in queries.chunk_by(|_, next| !matches!(next, PlannedQuery::Whole { .. })) {
        let end = start + family.len();
        let length: usize = family.iter().map(PlannedQuery::sequence_length).sum();
        match ranges.last_mut() {
            Some(range) if open.is_some_and(|open| open + length <= BATCH_TOKENS) => {
                range.end = end;
                open = open.map(|open| open + length);
            }
            _ if length <= FAMILY_TOKENS => {
                ranges.push(start..end);
                open = Some(length);
            }
            _ => {
                let lengths = family.iter().map(PlannedQuery::sequence_length);
                for part in group_within_limits(lengths, family.len(), BATCH_TOKENS) {
                    ranges.push(start + part.start..start + part.end);
                }
                open = None;
            }
        }
        start = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Design, Plan};

    #[test]
    fn batches_hold_all_steps_in_order_and_cut_large_families_alone() {
        let of = |splits: &[usize], negatives| {
            let plan = Plan::of(40, Design { splits: splits.to_vec(), negatives, ..Design::default() }).unwrap();
            let ranges = batches(plan.queries());
            assert_eq!(
                ranges.iter().cloned().flatten().collect::<Vec<_>>(),
                (0..plan.queries().len()).collect::<Vec<_>>()
            );
            let tokens = |range: &Range<usize>| {
                plan.queries()[range.clone()].iter().map(PlannedQuery::sequence_length).sum::<usize>()
            };
            let first = |range: &Range<usize>| matches!(plan.queries()[range.start], PlannedQuery::Whole { .. });
            (ranges.len(), ranges.iter().map(tokens).max().unwrap(), ranges.iter().all(first))
        };
        // Many small families in a batch, one large one, or parts of one that is larger still.
        assert_eq!(of(&[2, 4], 1), (1, 40 * (9 + 5 + 9 + 3 + 5), true));
        assert_eq!(of(&[512], 1), (14, 3 * (1025 + 1025 + 513), true));
        assert_eq!(of(&[2048, 4096], 1), (40, 8193 + 4097 + 8193 + 2049 + 4097, true));
        let (batches, longest, whole) = of(&[2048, 4096], 3);
        assert!(batches > 80 && longest <= 8193 && !whole);
    }
}
