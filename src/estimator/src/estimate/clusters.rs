//! Clusters: the independent groups of documents, over which standard errors and intervals are computed.

use crate::estimate::terms::differences;
use crate::plan::Plan;
use crate::value::Estimate;

/// The clusters of an experiment's documents: its texts, or its documents if they are all from one text.
///
/// Windows of one text share its subject and its author, so they are not independent. All clusters have the same
/// number of documents, so the mean over documents is the mean of the clusters' means, and its cluster-robust standard
/// error is the standard error of those means (Cameron and Miller, *A Practitioner's Guide to Cluster-Robust
/// Inference*, 2015, with the correction `G/(G-1)` for `G` clusters; Miller, *Adding Error Bars to Evals*, 2024).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clusters {
    /// Documents per cluster; the documents of a cluster are consecutive.
    size: usize,
}

impl Clusters {
    /// Returns the clusters of a plan's documents.
    pub(crate) fn of(plan: &Plan) -> Self {
        Self::new(plan.documents(), plan.design().per_text)
    }

    /// Returns the clusters of documents of which each `per_text` consecutive ones are of one text.
    pub(crate) fn new(documents: usize, per_text: usize) -> Self {
        Self { size: if per_text < documents { per_text } else { 1 } }
    }

    /// Returns the number of documents per cluster.
    pub(crate) fn size(self) -> usize {
        self.size
    }

    /// Returns the cluster of a document.
    pub(crate) fn of_document(self, document: usize) -> usize {
        document / self.size
    }

    /// Returns the mean of each cluster's values. There is one value per document.
    pub(crate) fn means(self, values: &[f64]) -> Vec<f64> {
        let size = self.size as f64;
        values.chunks(self.size).map(|cluster| cluster.iter().sum::<f64>() / size).collect()
    }

    /// Returns the mean of each cluster's rows, column by column. There is one row per document.
    pub(crate) fn mean_rows(self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let size = self.size as f64;
        let mean = |cluster: &[Vec<f64>]| {
            let mut sums = vec![0.0; cluster[0].len()];
            for row in cluster {
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            sums.iter().map(|sum| sum / size).collect()
        };
        rows.chunks(self.size).map(mean).collect()
    }

    /// Returns the mean of `to - from`, with its cluster-robust standard error. Both have one value per document.
    pub(crate) fn differences(self, from: &[f64], to: &[f64]) -> Estimate {
        self.estimate(&differences(to, from))
    }

    /// Returns the mean of the values, one per document, with its cluster-robust standard error.
    pub(crate) fn estimate(self, values: &[f64]) -> Estimate {
        Estimate::of(&self.means(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_texts_unless_there_is_only_one_text() {
        assert_eq!([(6, 2), (6, 1), (6, 6)].map(|(n, per_text)| Clusters::new(n, per_text).size()), [2, 1, 1]);
    }

    /// From statsmodels: `OLS(y, ones).fit(cov_type="cluster", cov_kwds={"groups": [0, 0, 1, 1, 2, 2]})`.
    #[test]
    fn the_error_is_cluster_robust() {
        let values = [1.0, 2.0, 4.0, 7.0, 3.0, 1.0];
        let estimate = Clusters::new(6, 2).estimate(&values);
        assert!((estimate.value - 3.0).abs() < 1e-12);
        assert!((estimate.error - 1.258_305_739_211_791_4).abs() < 1e-12, "{estimate:?}");
        assert_eq!(Clusters::new(6, 6).estimate(&values), Estimate::of(&values));
        let rows = values.map(|value| vec![value, -value]);
        assert_eq!(Clusters::new(6, 2).mean_rows(&rows), [vec![1.5, -1.5], vec![5.5, -5.5], vec![2.0, -2.0]]);
    }
}
