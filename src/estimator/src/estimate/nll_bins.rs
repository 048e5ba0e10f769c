//! Means by position in logarithmic bins: surprisal, and the divergence from a process.
//!
//! Positions of one document are correlated, and so are documents of one text. Each document therefore contributes one
//! number, its mean over the bin, and the error of the bin's mean is the standard error over clusters of documents
//! ([`Clusters`]).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::estimate::clusters::Clusters;
use crate::value::Estimate;

/// The number of bins in each doubling of the position, where there are enough positions.
const BINS_PER_OCTAVE: i32 = 4;

/// The mean surprisal, or the mean divergence, over a range of positions, in nats per token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionBin {
    /// The first position, counted from 1.
    pub first: usize,
    /// The last position.
    pub last: usize,
    /// The mean over positions and documents. Its error is the standard error over texts (over documents, if there is
    /// one text), and its interval is the 95 % interval of Student's t distribution.
    #[serde(flatten)]
    pub estimate: Estimate,
}

impl PositionBin {
    /// Returns the geometric mean of the first and the last position.
    pub(crate) fn center(&self) -> f64 {
        (self.first as f64 * self.last as f64).sqrt()
    }

    /// Returns the positions as text: `5`, or `5–8`.
    pub(crate) fn positions(&self) -> String {
        let Self { first, last, .. } = self;
        if first == last { first.to_string() } else { format!("{first}–{last}") }
    }
}

/// Returns the mean of each document over each bin, with one entry per document in each bin. `sum` adds the values of a
/// document over a range of positions, counted from 0. All documents have `window` positions.
pub(crate) fn document_bins(
    window: usize,
    documents: usize,
    sum: impl Fn(usize, Range<usize>) -> f64,
) -> Vec<Vec<f64>> {
    let mut bins = Vec::new();
    for (first, last) in ranges(window) {
        let mean = |document: usize| sum(document, first - 1..last) / (last + 1 - first) as f64;
        bins.push((0..documents).map(mean).collect());
    }
    bins
}

/// Returns the means over documents in bins that double in width with each octave of the position, from the documents'
/// means over the [`document_bins`] of `window` positions.
///
/// The error is that over [`Clusters`], and the interval is the mean ± the error times the 97.5 % quantile of Student's t
/// distribution with the clusters' degrees of freedom.
pub(crate) fn position_bins(window: usize, documents: &[Vec<f64>], clusters: &Clusters) -> Vec<PositionBin> {
    let mut bins = Vec::with_capacity(documents.len());
    for ((first, last), values) in ranges(window).into_iter().zip(documents) {
        let estimate = clusters.estimate(values).with_t_interval(clusters.freedom());
        bins.push(PositionBin { first, last, estimate });
    }
    bins
}

/// Returns the bins' first and last positions: they end at powers of `2^(1/BINS_PER_OCTAVE)`, rounded. A last bin that
/// the window cuts to less than half is joined to the bin before it.
fn ranges(window: usize) -> Vec<(usize, usize)> {
    let (mut ranges, mut first): (Vec<(usize, usize)>, usize) = (Vec::new(), 1);
    for step in 0.. {
        if first > window {
            break;
        }
        let end = (f64::from(step) / f64::from(BINS_PER_OCTAVE)).exp2().round() as usize;
        if end < first {
            continue;
        }
        match ranges.last_mut() {
            Some((_, last)) if 2 * (window + 1 - first) < end + 1 - first => *last = window,
            _ => ranges.push((first, end.min(window))),
        }
        first = end + 1;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the bins of documents with these surprisals.
    fn bins(documents: &[Vec<f64>], clusters: &Clusters) -> Vec<PositionBin> {
        let window = documents[0].len();
        let of_documents =
            document_bins(window, documents.len(), |document, range| documents[document][range].iter().sum());
        position_bins(window, &of_documents, clusters)
    }

    #[test]
    fn bins_are_single_positions_first_and_then_grow() {
        assert_eq!(
            ranges(23),
            [
                (1, 1),
                (2, 2),
                (3, 3),
                (4, 4),
                (5, 5),
                (6, 6),
                (7, 7),
                (8, 8),
                (9, 10),
                (11, 11),
                (12, 13),
                (14, 16),
                (17, 19),
                (20, 23)
            ]
        );
        assert_eq!(ranges(20).last(), Some(&(17, 20)), "one position of four joins the bin before");
        assert_eq!(ranges(21).last(), Some(&(20, 21)));
        assert_eq!(ranges(2048).len(), 40);
        assert_eq!(ranges(0), []);
    }

    /// Two texts of two documents each: the error is that of two values, however many positions and documents there are.
    #[test]
    fn errors_are_over_texts() {
        let documents = [[1.0, 2.0], [3.0, 2.0], [5.0, 4.0], [7.0, 4.0]].map(Vec::from);
        let first = bins(&documents, &Clusters::of_texts([0, 0, 1, 1]))[0];
        // The texts' means are 2 and 6.
        assert_eq!((first.estimate.value, first.estimate.error), (4.0, 2.0));
        let [low, high] = first.estimate.interval.unwrap();
        // The 97.5 % quantile of Student's t with one degree of freedom is tan(0.475 π).
        let side = 2.0 * (0.475 * std::f64::consts::PI).tan();
        assert!((high - 4.0 - side).abs() < 1e-8 && (4.0 - low - side).abs() < 1e-8, "{first:?}");
        // With one text, the documents are the units: 1, 3, 5 and 7.
        let error = bins(&documents, &Clusters::of_texts([0; 4]))[0].estimate.error;
        assert!((error - (20.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12, "{error}");
    }

    proptest! {
        /// The bins cover each position once, so that their means, weighted by width, have the mean of the window.
        #[test]
        fn bins_cover_the_window(window in 1..5000usize) {
            let ranges = ranges(window);
            prop_assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (1, window));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0 && pair[0].0 <= pair[0].1));
            let documents: Vec<Vec<f64>> =
                (0..3).map(|d| (0..window).map(|t| ((d * 7 + t * 13) % 11) as f64).collect()).collect();
            let weighted: f64 = bins(&documents, &Clusters::of_texts(0..3))
                .iter()
                .map(|bin| bin.estimate.value * (bin.last + 1 - bin.first) as f64)
                .sum();
            let total: f64 = documents.iter().flatten().sum();
            prop_assert!((weighted - total / 3.0).abs() < 1e-9 * total.max(1.0));
        }
    }
}
