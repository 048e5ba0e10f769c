//! Clusters: the independent groups of documents, over which standard errors and intervals are computed.

use crate::estimate::terms::differences;
use crate::plan::Plan;
use crate::value::Estimate;

/// The clusters of an experiment's documents: its texts, or its documents if they are all from one text.
///
/// Windows of one text share its subject and its author, so they are not independent. A mean over documents has a
/// cluster-robust standard error (Cameron and Miller, *A Practitioner's Guide to Cluster-Robust Inference*, 2015; Miller,
/// *Adding Error Bars to Evals*, 2024): `√(Σ (S - n m)² / (1 - n/N)) / N` for the mean `m` of all `N` documents, and
/// clusters of `n` documents with the sums `S` (CR2: Bell and McCaffrey, *Bias Reduction in Standard Errors for Linear
/// Regression with Multi-Stage Samples*, 2002).
///
/// Every statistic of this crate is computed from one value per cluster: `m` plus the cluster's influence on it,
/// `(S - n m) G/N · √((1 - 1/G) / (1 - n/N))` for `G` clusters. The mean of the influences is subtracted, so that the mean
/// of the values is `m`. The standard error of their mean is then the cluster-robust error of `m`, except for a small
/// part if the sizes of the clusters differ. If all clusters have the same number of documents, the values are the
/// means of the clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clusters {
    /// The cluster of each document.
    of_documents: Vec<usize>,
    /// The number of documents of each cluster.
    sizes: Vec<usize>,
}

impl Clusters {
    /// Returns the clusters of a plan's documents.
    pub(crate) fn of(plan: &Plan) -> Self {
        Self::of_texts(plan.texts().iter().copied())
    }

    /// Returns the clusters of documents from these texts, one entry per document. Documents of one text are
    /// consecutive.
    pub(crate) fn of_texts(texts: impl IntoIterator<Item = usize>) -> Self {
        let texts: Vec<usize> = texts.into_iter().collect();
        let sizes: Vec<usize> = texts.chunk_by(|one, next| one == next).map(<[usize]>::len).collect();
        if sizes.len() < 2 {
            return Self { of_documents: (0..texts.len()).collect(), sizes: vec![1; texts.len()] };
        }
        let of_documents = sizes.iter().enumerate().flat_map(|(cluster, &size)| vec![cluster; size]).collect();
        Self { of_documents, sizes }
    }

    /// Returns the number of clusters.
    pub(crate) fn count(&self) -> usize {
        self.sizes.len()
    }

    /// Returns the effective number of clusters, `N² / Σ n²` for `N` documents: the number of clusters of equal sizes with
    /// the same variance of the mean, if documents of one cluster are alike (Kish, *Survey Sampling*, 1965).
    pub(crate) fn effective_count(&self) -> f64 {
        self.effective_count_of(0..self.count())
    }

    /// Returns the effective number of some of the clusters.
    fn effective_count_of(&self, clusters: impl Iterator<Item = usize>) -> f64 {
        let (mut documents, mut squares) = (0, 0);
        for size in clusters.map(|cluster| self.sizes[cluster]) {
            documents += size;
            squares += size * size;
        }
        (documents as f64).powi(2) / squares as f64
    }

    /// Returns the degrees of freedom of the clusters' variance: the effective number of clusters minus 1, at least 1
    /// (Carter, Schnepel and Steigerwald, *Asymptotic Behavior of a t-Test Robust to Cluster Heterogeneity*, 2017).
    pub(crate) fn freedom(&self) -> f64 {
        self.freedom_of(0..self.count())
    }

    /// Returns the degrees of freedom of the variance of some of the clusters.
    pub(crate) fn freedom_of(&self, clusters: impl Iterator<Item = usize>) -> f64 {
        (self.effective_count_of(clusters) - 1.0).max(1.0)
    }

    /// Returns the correction of a cluster's influence, `√((1 - 1/G) / (1 - n/N))`: 1 if all clusters have the same size.
    pub(crate) fn correction(&self, cluster: usize) -> f64 {
        let (clusters, documents) = (self.count() as f64, self.of_documents.len() as f64);
        ((1.0 - 1.0 / clusters) / (1.0 - self.sizes[cluster] as f64 / documents)).sqrt()
    }

    /// Returns the cluster of a document.
    pub(crate) fn of_document(&self, document: usize) -> usize {
        self.of_documents[document]
    }

    /// Returns `true` if every document is a cluster of its own.
    pub(crate) fn are_documents(&self) -> bool {
        self.count() == self.of_documents.len()
    }

    /// Divides a slice with one entry per document into one slice per cluster.
    pub(crate) fn groups<'a, T>(&self, documents: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        let mut rest = documents;
        self.sizes.iter().map(move |&size| {
            let (group, others) = rest.split_at(size);
            rest = others;
            group
        })
    }

    /// Returns one value per cluster: the mean of all values plus the cluster's influence on it. There is one value per
    /// document.
    pub(crate) fn means(&self, values: &[f64]) -> Vec<f64> {
        let rows: Vec<Vec<f64>> = values.iter().map(|&value| vec![value]).collect();
        self.mean_rows(&rows).into_iter().flatten().collect()
    }

    /// Returns one row per cluster: column by column, the mean of all rows plus the cluster's influence on it. There is
    /// one row per document.
    pub(crate) fn mean_rows(&self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut sums = vec![vec![0.0; rows.first().map_or(0, Vec::len)]; self.count()];
        for (row, &cluster) in rows.iter().zip(&self.of_documents) {
            for (sum, value) in sums[cluster].iter_mut().zip(row) {
                *sum += value;
            }
        }
        let (documents, clusters) = (rows.len() as f64, self.count() as f64);
        for column in 0..sums.first().map_or(0, Vec::len) {
            let mean = sums.iter().map(|sums| sums[column]).sum::<f64>() / documents;
            for (cluster, sums) in sums.iter_mut().enumerate() {
                let influence = sums[column] - self.sizes[cluster] as f64 * mean;
                sums[column] = influence * self.correction(cluster) * clusters / documents;
            }
            let center = sums.iter().map(|sums| sums[column]).sum::<f64>() / clusters;
            sums.iter_mut().for_each(|sums| sums[column] += mean - center);
        }
        sums
    }

    /// Returns the mean of `to - from`, with its cluster-robust standard error. Both have one value per document.
    pub(crate) fn differences(&self, from: &[f64], to: &[f64]) -> Estimate {
        self.estimate(&differences(to, from))
    }

    /// Returns the mean of the values, one per document, with its cluster-robust standard error.
    pub(crate) fn estimate(&self, values: &[f64]) -> Estimate {
        Estimate::of(&self.means(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_texts_unless_there_is_only_one_text() {
        let counts = [[0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5], [0; 6]].map(|texts| Clusters::of_texts(texts).count());
        assert_eq!(counts, [3, 6, 6]);
        assert_eq!(Clusters::of_texts([0, 0, 1, 1, 2, 2]).effective_count(), 3.0);
        assert_eq!(Clusters::of_texts([0, 0, 0, 0, 1, 2]).effective_count(), 2.0);
    }

    /// From statsmodels: `OLS(y, ones).fit(cov_type="cluster", cov_kwds={"groups": [0, 0, 1, 1, 2, 2]})`.
    #[test]
    fn the_error_is_cluster_robust() {
        let values = [1.0, 2.0, 4.0, 7.0, 3.0, 1.0];
        let estimate = Clusters::of_texts([0, 0, 1, 1, 2, 2]).estimate(&values);
        assert!((estimate.value - 3.0).abs() < 1e-12);
        assert!((estimate.error - 1.258_305_739_211_791_4).abs() < 1e-12, "{estimate:?}");
        assert_eq!(Clusters::of_texts([0; 6]).estimate(&values), Estimate::of(&values));
    }

    /// The sums of deviations are -2, 4 and -2. With CR2, their squares are divided by 5/6, 1/2 and 2/3.
    #[test]
    fn the_error_of_uneven_clusters_is_almost_cr2() {
        let estimate = Clusters::of_texts([0, 1, 1, 1, 2, 2]).estimate(&[1.0, 2.0, 4.0, 7.0, 3.0, 1.0]);
        let influences = [-2.0 * 1.2_f64.sqrt(), 4.0 * 2_f64.sqrt(), -2.0 * 1.5_f64.sqrt()].map(|sum| sum / 6.0);
        let [squares, sum] = [2, 1].map(|power| influences.iter().map(|i: &f64| i.powi(power)).sum::<f64>());
        assert!((estimate.value - 3.0).abs() < 1e-12);
        assert!((estimate.error - (squares - sum * sum / 3.0).sqrt()).abs() < 1e-12, "{estimate:?}");
        assert!((estimate.error / squares.sqrt() - 1.0).abs() < 0.03);
    }

    #[test]
    fn values_of_equal_clusters_are_their_means() {
        let rows = [1.0, 2.0, 4.0, 7.0, 3.0, 1.0].map(|value| vec![value, -value]);
        let means = Clusters::of_texts([0, 0, 1, 1, 2, 2]).mean_rows(&rows);
        for (found, expected) in means.iter().zip([1.5, 5.5, 2.0]) {
            assert!((found[0] - expected).abs() < 1e-12 && (found[1] + expected).abs() < 1e-12, "{means:?}");
        }
    }

    /// If one text has a quarter of all windows and the others one each, intervals cover the truth in about 95 % of all
    /// experiments.
    #[test]
    fn intervals_of_uneven_clusters_cover_the_truth() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let clusters = Clusters::of_texts((0..100).map(|document: usize| document.saturating_sub(24)));
        let repetitions = 2000;
        let covered = (0..repetitions).filter(|_| {
            let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            let texts: Vec<f64> = (0..clusters.count()).map(|_| normal()).collect();
            let values: Vec<f64> = (0..100).map(|document| texts[clusters.of_document(document)] + normal()).collect();
            let [low, high] = clusters.estimate(&values).with_t_interval(clusters.freedom()).interval.unwrap();
            (low..=high).contains(&0.0)
        });
        let part = covered.count() as f64 / f64::from(repetitions);
        println!("coverage {part}, effective number of texts {}", clusters.effective_count());
        assert!((0.93..0.97).contains(&part), "{part}");
    }
}
