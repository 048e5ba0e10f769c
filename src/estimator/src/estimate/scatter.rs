//! The covariance between means, from the scatter of clusters or of documents.

use serde::{Deserialize, Serialize};

use crate::estimate::clusters::Clusters;

/// The minimum degrees of freedom of a covariance in excess of its number of means. With fewer, its inverse is too
/// inaccurate for a test.
const SPARE_FREEDOM: usize = 8;

/// The observations whose scatter determines the covariance between means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Clusters: texts, or documents if there is one text or one document per text. The test is about a population of
    /// texts (or, for one text, of its windows).
    Clusters,
    /// Documents within texts. There are too few texts for a test over texts, so the test is about the given texts only.
    Within,
}

/// Means, the covariance of the means, and its degrees of freedom.
pub(crate) struct Scatter {
    pub(crate) means: Vec<f64>,
    pub(crate) covariance: Vec<Vec<f64>>,
    pub(crate) freedom: usize,
}

impl Scatter {
    /// Returns the degrees of freedom that the covariance of this many means needs.
    pub(crate) fn needed_freedom(means: usize) -> usize {
        means + SPARE_FREEDOM
    }

    /// Returns the scatter between clusters if it has enough degrees of freedom for the inverse of the covariance,
    /// otherwise the scatter within clusters; `None` if neither has. `rows` has one row per document, and
    /// `cluster_rows` one per cluster.
    pub(crate) fn choose(
        rows: &[Vec<f64>],
        cluster_rows: &[Vec<f64>],
        clusters: &Clusters,
    ) -> Option<(Sampling, Self)> {
        let needed = Self::needed_freedom(rows.first().map_or(0, Vec::len));
        let between = Self { freedom: clusters.freedom() as usize, ..Self::between(cluster_rows) };
        if between.freedom >= needed {
            return Some((Sampling::Clusters, between));
        }
        let within = Self::within(rows, clusters);
        (within.freedom >= needed).then_some((Sampling::Within, within))
    }

    /// Returns the covariance of the rows' means, for independent rows.
    fn between(rows: &[Vec<f64>]) -> Self {
        Self::within_groups(rows, [rows].into_iter())
    }

    /// Returns the covariance of the rows' means if only the scatter within clusters is considered.
    fn within(rows: &[Vec<f64>], clusters: &Clusters) -> Self {
        Self::within_groups(rows, clusters.groups(rows))
    }

    /// Returns the covariance of the means of `rows`, which consist of `groups`, from the scatter within the groups.
    fn within_groups<'a>(rows: &'a [Vec<f64>], groups: impl Iterator<Item = &'a [Vec<f64>]>) -> Self {
        let width = rows.first().map_or(0, Vec::len);
        let mean = |rows: &[Vec<f64>]| -> Vec<f64> {
            (0..width).map(|column| rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64).collect()
        };
        let (mut freedom, mut products) = (rows.len(), vec![vec![0.0; width]; width]);
        for group in groups {
            freedom -= 1;
            let centre = mean(group);
            for row in group {
                for (i, products) in products.iter_mut().enumerate() {
                    for (j, product) in products.iter_mut().enumerate() {
                        *product += (row[i] - centre[i]) * (row[j] - centre[j]);
                    }
                }
            }
        }
        let scale = 1.0 / (freedom.max(1) as f64 * rows.len() as f64);
        products.iter_mut().flatten().for_each(|product| *product *= scale);
        Self { means: mean(rows), covariance: products, freedom }
    }
}
