//! Contributions: one value per estimator and document. An estimate is the mean of its contributions.

use crate::estimate::PairingErrors;
use crate::estimate::averaged::Averaged;
use crate::estimate::clusters::Clusters;
use crate::estimate::correction::Correction;
use crate::estimate::dyadic::{QueryValue, dyadic_values};
use crate::estimate::series::Series;
use crate::estimate::terms::{Crossed, Joint, Terms, differences};
use crate::plan::{Pairing, Plan};
use crate::value::Estimate;

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
    /// The values of each cluster for vCLUB ([`dyadic_values`]).
    vclub_of_clusters: Vec<f64>,
    /// The standard errors of the direct estimate.
    pub(crate) direct_errors: PairingErrors,
    /// The standard errors of the corrected estimate, without that of the n-gram entropy.
    pub(crate) corrected_errors: Option<PairingErrors>,
    /// The estimates with an averaged marginal; `None` for fewer than two contexts.
    pub(crate) averaged: Option<Averaged>,
    clusters: Clusters,
    /// The difference of the direct estimate from additivity; `None` if it was not tested.
    pub(crate) additivity: Option<Additivity>,
}

/// The direct estimate of two unrelated documents together, minus the sum of their direct estimates.
pub(crate) struct Additivity {
    /// The mean over pairs of documents, with its standard error over pairs of texts.
    pub(crate) difference: Estimate,
    /// The number of pairs of texts.
    pub(crate) pairs: usize,
}

impl Contributions {
    pub(crate) fn new(terms: &Terms, plan: &Plan, correction: Option<Correction>) -> Self {
        let corrected = correction.map(|correction| correction.marginal(terms));
        let clusters = Clusters::of(plan);
        let contexts = terms.unrelated(plan);
        let has_several = contexts.first().is_some_and(|contexts| contexts.len() >= 2);
        let averaged = has_several.then(|| Averaged::new(&terms.conditional, &contexts, &clusters));
        Self {
            direct: differences(&terms.conditional, &terms.marginal),
            corrected: corrected.as_ref().map(|marginal| differences(&terms.conditional, marginal)),
            vclub: differences(&terms.conditional, &terms.crossed_means()),
            vclub_of_clusters: vclub_of_clusters(terms, &clusters),
            direct_errors: PairingErrors::new(terms, plan, &terms.marginal),
            corrected_errors: corrected.map(|marginal| PairingErrors::new(terms, plan, &marginal)),
            averaged,
            additivity: Additivity::of(terms, plan),
            clusters,
        }
    }

    /// Returns the documents' contributions to an estimator; `None` if it was not computed.
    pub(crate) fn of(&self, estimator: usize) -> Option<&[f64]> {
        match estimator {
            DIRECT => Some(&self.direct),
            CORRECTED => self.corrected.as_deref(),
            VCLUB => Some(&self.vclub),
            AVERAGED => self.averaged.as_ref().map(Averaged::all),
            AVERAGED_LIMIT => self.averaged.as_ref()?.converged_limit().map(|limit| limit.mean.values.as_slice()),
            INFO_NCE => self.averaged.as_ref().map(|averaged| averaged.info_nce.values.as_slice()),
            _ => None,
        }
    }

    /// Returns the clusters' values of an estimator; `None` if it was not computed. Their mean is the estimate, and the
    /// standard error of their mean is that of the estimate.
    pub(crate) fn of_clusters(&self, estimator: usize) -> Option<Vec<f64>> {
        match estimator {
            VCLUB => Some(self.vclub_of_clusters.clone()),
            AVERAGED => self.averaged.as_ref()?.curve.last().map(|last| last.of_clusters.clone()),
            AVERAGED_LIMIT => self.averaged.as_ref()?.converged_limit().map(|limit| limit.mean.of_clusters.clone()),
            INFO_NCE => self.averaged.as_ref().map(|averaged| averaged.info_nce.of_clusters.clone()),
            _ => self.of(estimator).map(|values| self.clusters.means(values)),
        }
    }

    /// Returns the mean of one estimator minus that of another at two points, with its standard error over clusters;
    /// `None` if one of them was not computed.
    pub(crate) fn difference(to: (&Self, usize), from: (&Self, usize)) -> Option<Estimate> {
        let of_clusters = |(contributions, estimator): (&Self, usize)| contributions.of_clusters(estimator);
        Some(Estimate::of(&differences(&of_clusters(to)?, &of_clusters(from)?)))
    }
}

impl Additivity {
    fn of(terms: &Terms, plan: &Plan) -> Option<Self> {
        let direct = |document: usize| terms.conditional[document] - terms.marginal[document];
        let clusters = Clusters::of_texts(terms.joint.keys().map(|documents| plan.texts()[documents[0]]));
        let difference =
            |(&[a, b], joint): (&[usize; 2], &Joint)| joint.conditional - joint.marginal - direct(a) - direct(b);
        let differences: Vec<f64> = terms.joint.iter().map(difference).collect();
        let difference = clusters.estimate(&differences);
        (!differences.is_empty()).then(|| Self { difference, pairs: clusters.count() })
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

/// Returns the clusters' values for vCLUB. A query has the value `ln q(y_i|x_i) - ln q(y_i|x_j)`.
fn vclub_of_clusters(terms: &Terms, clusters: &Clusters) -> Vec<f64> {
    dyadic_values(clusters, terms.conditional.len(), |document| {
        let own = terms.conditional[document];
        let query = |&Crossed { x, logprob }: &Crossed| QueryValue { x, value: own - logprob };
        terms.crossed[document].iter().map(query).collect()
    })
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
pub(crate) fn cluster_rows(points: &[Contributions], clusters: &Clusters) -> Vec<Vec<f64>> {
    let mut rows = vec![Vec::with_capacity(ESTIMATORS.len() * points.len()); clusters.count()];
    for point in points {
        for estimator in 0..ESTIMATORS.len() {
            let values = point.of_clusters(estimator).unwrap_or_else(|| vec![0.0; rows.len()]);
            rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
        }
    }
    rows
}
