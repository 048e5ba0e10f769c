//! Errors of means over queries that share contexts.

use crate::estimate::clusters::Clusters;

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
/// other texts. `of_document` returns the queries of a document's `y`; all documents have the same number of queries.
///
/// A cluster's value is the mean, plus the cluster's influences on it as the origin of `y` and as the origin of `x`. The
/// variance of the mean of these values counts the queries of each pair of clusters twice, so the square of the pair's
/// sum is subtracted once, and the influences are scaled to the remaining variance (Aronow, Samii and Assenova,
/// *Cluster-Robust Variance Estimation for Dyadic Data*, 2015). The variance is at least that of the clusters of `y`
/// alone. It is that variance if each context is that of one `y` only.
pub(crate) fn dyadic_values(
    clusters: &Clusters,
    documents: usize,
    of_document: impl Fn(usize) -> Vec<QueryValue>,
) -> Vec<f64> {
    let mean_of = |queries: &[QueryValue]| queries.iter().map(|query| query.value).sum::<f64>() / queries.len() as f64;
    let contributions: Vec<f64> = (0..documents).map(|document| mean_of(&of_document(document))).collect();
    let of_y = clusters.means(&contributions);
    let (count, mut queries) = (of_y.len() as f64, 0.0);
    let mean = of_y.iter().sum::<f64>() / count;
    let mut sums_of_x = vec![0.0; of_y.len()];
    let mut pairs: Vec<([usize; 2], f64)> = Vec::new();
    for document in 0..documents {
        let y = clusters.of_document(document);
        for QueryValue { x, value } in of_document(document) {
            let x = clusters.of_document(x);
            sums_of_x[x] += value - mean;
            pairs.push(([y.min(x), y.max(x)], value - mean));
            queries += 1.0;
        }
    }
    if clusters.are_documents() && queries == count {
        return of_y;
    }
    let influences: Vec<f64> = of_y.iter().zip(&sums_of_x).map(|(y, x)| y - mean + x * count / queries).collect();
    let variance =
        |influences: &mut dyn Iterator<Item = f64>| influences.map(|i| i * i).sum::<f64>() / count / (count - 1.0);
    let both = variance(&mut influences.iter().copied());
    let needed = (both - sum_of_squares(pairs) / queries / queries).max(variance(&mut of_y.iter().map(|y| y - mean)));
    let scale = if both > 0.0 { (needed / both).sqrt() } else { 1.0 };
    influences.iter().map(|influence| mean + scale * influence).collect()
}

/// Returns the sum over all pairs of clusters of the squares of their sums.
fn sum_of_squares(mut pairs: Vec<([usize; 2], f64)>) -> f64 {
    pairs.sort_by_key(|&(pair, _)| pair);
    let sums = pairs.chunk_by(|one, next| one.0 == next.0).map(|pair| pair.iter().map(|(_, value)| value).sum::<f64>());
    sums.map(|sum| sum * sum).sum()
}
