//! Errors of means over queries that share contexts.

use crate::estimate::clusters::Clusters;
use crate::value::Estimate;

/// A query's part in a mean over documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QueryValue {
    /// The document that the context is from.
    pub(crate) x: usize,
    /// The value, in nats. The mean over a document's queries is the document's contribution.
    pub(crate) value: f64,
}

/// Returns the clusters' values of a mean over the queries of all documents. Their mean is that mean, and the standard
/// error of their mean is robust to the clusters of both `y` and `x`: the contexts of one text are contexts of many
/// other texts. `queries` has those of each document's `y`; all documents have the same number of queries.
///
/// A cluster's value is the mean, plus the cluster's influences on it as the origin of `y` and as the origin of `x`. The
/// variance of the mean of these values counts the queries of each pair of clusters twice, so the square of the pair's
/// sum is subtracted once, and the influences are scaled to the remaining variance (Aronow, Samii and Assenova,
/// *Cluster-Robust Variance Estimation for Dyadic Data*, 2015). With few clusters this variance can be too small. If it
/// is less than that of the clusters of `y` alone, the values are those of the clusters of `y`; so they are if each
/// context is that of one `y` only.
pub(crate) fn dyadic_values(clusters: &Clusters, queries: &[Vec<QueryValue>]) -> Vec<f64> {
    let mean_of =
        |queries: &Vec<QueryValue>| queries.iter().map(|query| query.value).sum::<f64>() / queries.len() as f64;
    let of_y = clusters.means(&queries.iter().map(mean_of).collect::<Vec<f64>>());
    if clusters.are_documents() && queries.iter().all(|queries| queries.len() == 1) {
        return of_y;
    }
    let units = queries.iter().enumerate().flat_map(|(document, queries)| {
        let y = clusters.of_document(document);
        queries.iter().map(move |query| ([y, clusters.of_document(query.x)], query.value))
    });
    let Dyadic { influences, variance } = Dyadic::new(&of_y, units, |x| clusters.correction(x));
    let over_y = Estimate::of(&of_y);
    if variance <= over_y.error.powi(2) {
        return of_y;
    }
    let of_influences = Estimate::of(&influences);
    let scale = variance.sqrt() / of_influences.error;
    influences.iter().map(|influence| over_y.value + scale * influence).collect()
}

/// The influences of clusters on a mean over queries, and the variance of that mean.
pub(crate) struct Dyadic {
    /// The sum of each cluster's influences as the origin of `y` and as the origin of `x`, minus their mean.
    influences: Vec<f64>,
    /// The variance that counts the queries of each pair of clusters once.
    pub(crate) variance: f64,
}

impl Dyadic {
    /// Combines the values of the clusters of `y` with their queries. A query has the clusters of its `y` and its `x`, and
    /// its value. The clusters of `y` come first; contexts may be from others. `correction` is that of a cluster of `x`.
    pub(crate) fn new(
        of_y: &[f64],
        queries: impl IntoIterator<Item = ([usize; 2], f64)>,
        correction: impl Fn(usize) -> f64,
    ) -> Self {
        let (count, mean) = (of_y.len() as f64, Estimate::of(of_y).value);
        let (mut sums_of_x, mut pairs, mut total) = (vec![0.0; of_y.len()], Vec::new(), 0.0);
        for ([y, x], value) in queries {
            sums_of_x.resize(sums_of_x.len().max(x + 1), 0.0);
            // A context from the cluster of its y belongs to one cluster only.
            if x != y {
                sums_of_x[x] += value - mean;
                pairs.push(([y.min(x), y.max(x)], value - mean));
            }
            total += 1.0;
        }
        let mut influences = Vec::with_capacity(sums_of_x.len());
        for (cluster, sum) in sums_of_x.into_iter().enumerate() {
            let y = of_y.get(cluster).map_or(0.0, |y| y - mean);
            influences.push(y + sum * correction(cluster) * count / total);
        }
        let center = influences.iter().sum::<f64>() / influences.len() as f64;
        influences.iter_mut().for_each(|influence| *influence -= center);
        let squares: f64 = influences.iter().map(|influence| influence * influence).sum();
        let variance = squares / count / (count - 1.0) - sum_of_squares(pairs) / total / total;
        Self { influences, variance }
    }
}

/// Returns the sum over all pairs of clusters of the squares of their sums.
fn sum_of_squares(mut pairs: Vec<([usize; 2], f64)>) -> f64 {
    pairs.sort_by_key(|&(pair, _)| pair);
    let sums = pairs.chunk_by(|one, next| one.0 == next.0).map(|pair| pair.iter().map(|(_, value)| value).sum::<f64>());
    sums.map(|sum| sum * sum).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With few clusters, one that has most documents, and contexts of the own cluster, too: the mean is exact, and the
        /// error at least that over the clusters of `y`.
        #[test]
        fn the_mean_is_exact_and_the_error_at_least_that_of_y(
            sizes in prop::collection::vec(1_usize..12, 2..5), contexts in 1_usize..4,
            values in prop::collection::vec(-5.0..5.0, 200),
        ) {
            let texts: Vec<usize> = sizes.iter().enumerate().flat_map(|(text, &size)| vec![text; size]).collect();
            let (documents, clusters) = (texts.len(), Clusters::of_texts(texts));
            let queries = |document: usize| -> Vec<QueryValue> {
                let value = |k: usize| values[(document * contexts + k) % values.len()] + (document as f64 / 3.0).sin();
                (0..contexts).map(|k| QueryValue { x: (document + 1 + k) % documents, value: value(k) }).collect()
            };
            let means: Vec<f64> = (0..documents)
                .map(|document| queries(document).iter().map(|query| query.value).sum::<f64>() / contexts as f64)
                .collect();
            let found = Estimate::of(&dyadic_values(&clusters, &(0..documents).map(queries).collect::<Vec<_>>()));
            let of_y = clusters.estimate(&means);
            prop_assert!((found.value - means.iter().sum::<f64>() / documents as f64).abs() < 1e-9, "{found:?}");
            prop_assert!(found.error >= of_y.error * (1.0 - 1e-9), "{found:?} {of_y:?}");
        }
    }
}
