//! Compilation of a design into queries.

use crate::plan::Point;
use crate::plan::design::Design;
use crate::plan::partners::Partners;
use crate::plan::query::PlannedQuery;

/// Compiles the queries. For each document in the order of `partners`, the queries score: the document's whole window;
/// after the document's `x`, the `y` of each document that it is a partner of; and without a context, the first of those
/// `y`. The queries of a pair in `joint` come after those that begin with the same tokens: those with the first
/// document's `x`, and those with its `y` alone.
pub(crate) fn compile(
    partners: &Partners,
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
    let mut pair_of = vec![None; partners.order().len()];
    joint.iter().for_each(|&documents| pair_of[documents[0]] = Some(documents));
    let mut queries = Vec::new();
    let with_partner = partners.inverse();
    for &x in partners.order() {
        queries.push(PlannedQuery::Whole { document: x, end: window });
        for &y in &with_partner[x] {
            queries.extend(ends.iter().map(|&(split, end)| PlannedQuery::Crossed { x, y, split, end }));
        }
        let of_split = design.additivity.iter().map(|&split| (split, split * design.ratios[0]));
        if let Some(documents) = pair_of[x] {
            queries.extend(of_split.clone().map(|(split, end)| PlannedQuery::Joint { documents, split, end }));
        }
        let document = with_partner[x][0];
        queries.extend(ends.iter().map(|&(split, end)| PlannedQuery::Marginal { document, split, end }));
        if let Some(documents) = pair_of[document] {
            queries.extend(of_split.map(|(split, end)| PlannedQuery::JointMarginal { documents, split, end }));
        }
    }
    queries
}
