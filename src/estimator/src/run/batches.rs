//! Batches: consecutive queries of a plan, sent to the source in one call. A *family* of queries is a whole document
//! and the queries up to the next whole document, most of which continue its prefixes.

use std::ops::Range;

use crate::plan::PlannedQuery;
use crate::source::group_within_limits;

/// Maximum tokens in one call, unless a single query or an undivided family has more.
const BATCH_TOKENS: usize = 8 * 1024;

/// Maximum tokens in an undivided family. If possible, a family is sent in one call, so that the document is scored
/// before the queries that continue its prefixes.
const FAMILY_TOKENS: usize = 32 * 1024;

/// Divides queries into consecutive ranges, one for each call. Only large families are divided; small families share a
/// call.
pub(crate) fn batches(queries: &[PlannedQuery]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    // Tokens in the last range; `None` if no other family may join that range.
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
    fn batches_keep_all_queries_in_order_and_divide_only_large_families() {
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
        // A batch has many small families, one large family, or a part of a very large one.
        assert_eq!(of(&[2, 4], 1), (1, 40 * (9 + 5 + 9 + 3 + 5), true));
        assert_eq!(of(&[512], 1), (14, 3 * (1025 + 1025 + 513), true));
        assert_eq!(of(&[2048, 4096], 1), (40, 8193 + 4097 + 8193 + 2049 + 4097, true));
        let (batches, longest, whole) = of(&[2048, 4096], 3);
        assert!(batches > 80 && longest <= 8193 && !whole);
    }
}
