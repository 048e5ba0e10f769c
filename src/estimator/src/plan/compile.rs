//! Compilation of a design into queries.

use crate::plan::Point;
use crate::plan::design::Design;
use crate::plan::partners::PartnerTable;
use crate::plan::query::PlannedQuery;

/// Compiles the queries. For each document in the table's order, the queries score: the document's whole window; after
/// the document's `x`, the `y` of each document that it is a partner of; without a context, the first of those `y`; and
/// the document together with the one that it is paired with in `joint`.
pub(crate) fn compile(
    table: &PartnerTable,
    design: &Design,
    points: &[Point],
    joint: &[[usize; 2]],
) -> Vec<PlannedQuery> {
    // Each split with the end of its longest `y`.
    let mut ends: Vec<(usize, usize)> = Vec::with_capacity(design.splits.len());
    for &split in &design.splits {
        let of_split = points.iter().filter(|point| point.split == split);
        ends.push((split, of_split.map(Point::length).max().unwrap_or(split)));
    }
    let window = ends.iter().map(|&(_, end)| end).max().unwrap_or_default();
    let mut pair_of = vec![None; table.order().len()];
    joint.iter().for_each(|&documents| pair_of[documents[0]] = Some(documents));
    let mut queries = Vec::new();
    for (place, &x) in table.order().iter().enumerate() {
        queries.push(PlannedQuery::Whole { document: x, end: window });
        for k in 0..design.negatives {
            let y = table.document_with_partner(place, k);
            queries.extend(ends.iter().map(|&(split, end)| PlannedQuery::Crossed { x, y, split, end }));
        }
        let document = table.document_with_partner(place, 0);
        queries.extend(ends.iter().map(|&(split, end)| PlannedQuery::Marginal { document, split, end }));
        if let Some(documents) = pair_of[x] {
            for &split in &design.additivity {
                let end = split * design.ratios[0];
                queries.push(PlannedQuery::Joint { documents, split, end });
                queries.push(PlannedQuery::JointMarginal { documents, split, end });
            }
        }
    }
    queries
}
