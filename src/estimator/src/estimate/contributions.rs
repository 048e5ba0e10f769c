//! Contributions: one value per estimator and document. An estimate is the mean of its contributions.

use std::collections::BTreeMap;

use crate::estimate::PairingErrors;
use crate::estimate::averaged::{Averaged, Limit};
use crate::estimate::clusters::Clusters;
use crate::estimate::correction::Correction;
use crate::estimate::series::Series;
use crate::estimate::terms::{Crossed, Terms, differences};
use crate::plan::{Pairing, Plan};

/// The estimators, in the order of the bootstrap's columns.
pub(crate) const ESTIMATORS: [Series; 6] =
    [Series::Direct, Series::Corrected, Series::Vclub, Series::Averaged, Series::AveragedLimit, Series::InfoNce];

/// Indices into [`ESTIMATORS`].
pub(crate) const DIRECT: usize = 0;
pub(crate) const CORRECTED: usize = 1;
pub(crate) const VCLUB: usize = 2;
pub(crate) const AVERAGED: usize = 3;
pub(crate) const AVERAGED_LIMIT: usize = 4;
pub(crate) const INFO_NCE: usize = 5;

/// Returns the bootstrap's column for an estimator at a point.
pub(crate) fn column(point: usize, estimator: usize) -> usize {
    ESTIMATORS.len() * point + estimator
}

/// The contributions of each document to the estimators at one point, in nats. Marginal terms are those of the same
/// `y`, whatever the plan's [`Pairing`]: the pairing changes no mean.
pub(crate) struct Contributions {
    pub(crate) direct: Vec<f64>,
    pub(crate) corrected: Option<Vec<f64>>,
    pub(crate) vclub: Vec<f64>,
    /// The contributions of each cluster to vCLUB; see [`vclub_of_clusters`].
    pub(crate) vclub_of_clusters: Vec<f64>,
    /// The standard errors of the direct estimate.
    pub(crate) direct_errors: PairingErrors,
    /// The standard errors of the corrected estimate, without that of the n-gram entropy.
    pub(crate) corrected_errors: Option<PairingErrors>,
    /// The estimates with an averaged marginal; `None` for fewer than two contexts.
    pub(crate) averaged: Option<Averaged>,
    /// The extrapolation of the averaged marginal; `None` if there is none that can be trusted.
    pub(crate) limit: Option<Limit>,
}

impl Contributions {
    pub(crate) fn new(terms: &Terms, plan: &Plan, correction: Option<Correction>) -> Self {
        let corrected = correction.map(|correction| correction.marginal(terms));
        let unrelated = terms.unrelated(plan);
        let contexts = unrelated.first().map_or(0, Vec::len);
        let averaged = (contexts >= 2).then(|| Averaged::new(&terms.conditional, &unrelated));
        Self {
            direct: differences(&terms.conditional, &terms.marginal),
            corrected: corrected.as_ref().map(|marginal| differences(&terms.conditional, marginal)),
            vclub: differences(&terms.conditional, &terms.crossed_means()),
            vclub_of_clusters: vclub_of_clusters(terms, &Clusters::of(plan)),
            direct_errors: PairingErrors::new(terms, plan, &terms.marginal),
            corrected_errors: corrected.map(|marginal| PairingErrors::new(terms, plan, &marginal)),
            limit: averaged.as_ref().and_then(Averaged::converged_limit),
            averaged,
        }
    }

    /// Returns the documents' contributions to an estimator; `None` if it was not computed.
    pub(crate) fn of(&self, estimator: usize) -> Option<&[f64]> {
        match estimator {
            DIRECT => Some(&self.direct),
            CORRECTED => self.corrected.as_deref(),
            VCLUB => Some(&self.vclub),
            AVERAGED => self.averaged.as_ref().map(Averaged::all),
            AVERAGED_LIMIT => self.limit.as_ref().map(|limit| limit.values.as_slice()),
            INFO_NCE => self.averaged.as_ref().map(|averaged| averaged.info_nce.as_slice()),
            _ => None,
        }
    }
}

impl PairingErrors {
    /// Returns the standard errors of the mean of conditional minus marginal terms.
    fn new(terms: &Terms, plan: &Plan, marginal: &[f64]) -> Self {
        let error = |marginal: &[f64]| Clusters::of(plan).estimate(&differences(&terms.conditional, marginal)).error;
        let partners: Vec<f64> = plan.partners().iter().map(|&j| marginal[j]).collect();
        Self { same: error(marginal), crossed: error(&partners) }
    }

    /// Returns the error with a pairing.
    pub(crate) fn get(self, pairing: Pairing) -> f64 {
        match pairing {
            Pairing::Same => self.same,
            Pairing::Crossed => self.crossed,
        }
    }
}

/// Returns the clusters' contributions to vCLUB. Their mean is the estimate, and the standard error of their mean is
/// robust to the clusters of both `y` and `x`: the contexts of one text are negatives of other texts.
///
/// A query has the value `e = ln q(y_i|x_i) - ln q(y_i|x_j)`. A cluster's contribution is the mean, plus the deviations
/// of the mean of `e` over the cluster's `y` and of the mean over its `x`. The variance of the mean of these
/// contributions counts the queries of each pair of clusters twice, so the square of the pair's sum is subtracted once,
/// and the deviations are scaled to the remaining variance (Aronow, Samii and Assenova, *Cluster-Robust Variance
/// Estimation for Dyadic Data*, 2015). The variance is at least that of the clusters of `y` alone. It is that variance
/// if each context is the negative of one `y` only.
fn vclub_of_clusters(terms: &Terms, clusters: &Clusters) -> Vec<f64> {
    let of_y = clusters.means(&differences(&terms.conditional, &terms.crossed_means()));
    if clusters.are_documents() && terms.crossed.iter().all(|crossed| crossed.len() == 1) {
        return of_y;
    }
    let (count, mut queries) = (of_y.len() as f64, 0.0);
    let mean = of_y.iter().sum::<f64>() / count;
    // The sums of the deviations over the clusters of x.
    let mut of_x = vec![0.0; of_y.len()];
    let mut of_pairs: BTreeMap<[usize; 2], f64> = BTreeMap::new();
    for (document, (conditional, crossed)) in terms.conditional.iter().zip(&terms.crossed).enumerate() {
        for &Crossed { x, logprob } in crossed {
            let deviation = conditional - logprob - mean;
            let [y, x] = [document, x].map(|document| clusters.of_document(document));
            of_x[x] += deviation;
            *of_pairs.entry([y.min(x), y.max(x)]).or_default() += deviation;
            queries += 1.0;
        }
    }
    let deviations: Vec<f64> = of_y.iter().zip(&of_x).map(|(y, x)| y - mean + x * count / queries).collect();
    let variance =
        |deviations: &mut dyn Iterator<Item = f64>| deviations.map(|d| d * d).sum::<f64>() / count / (count - 1.0);
    let both = variance(&mut deviations.iter().copied());
    let twice = of_pairs.values().map(|sum| sum * sum).sum::<f64>() / queries / queries;
    let needed = (both - twice).max(variance(&mut of_y.iter().map(|y| y - mean)));
    let scale = if both > 0.0 { (needed / both).sqrt() } else { 1.0 };
    deviations.iter().map(|deviation| mean + scale * deviation).collect()
}

/// Returns one row per document, with a [`column`] for each estimator at each point. The columns of an estimator that
/// was not computed are 0.
pub(crate) fn rows(points: &[Contributions], documents: usize) -> Vec<Vec<f64>> {
    let mut rows = Vec::with_capacity(documents);
    for document in 0..documents {
        let mut row = Vec::with_capacity(ESTIMATORS.len() * points.len());
        for point in points {
            row.extend(
                (0..ESTIMATORS.len()).map(|estimator| point.of(estimator).map_or(0.0, |values| values[document])),
            );
        }
        rows.push(row);
    }
    rows
}

/// Returns one row per cluster, with the same columns as [`rows`].
pub(crate) fn cluster_rows(points: &[Contributions], clusters: &Clusters, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut means = clusters.mean_rows(rows);
    for (cluster, row) in means.iter_mut().enumerate() {
        for (index, point) in points.iter().enumerate() {
            row[column(index, VCLUB)] = point.vclub_of_clusters[cluster];
        }
    }
    means
}
