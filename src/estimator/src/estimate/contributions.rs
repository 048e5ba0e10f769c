//! Contributions: one value per estimator and document. An estimate is the mean of its contributions.

use crate::estimate::PairingErrors;
use crate::estimate::averaged::{Averaged, ContextMean};
use crate::estimate::clusters::Clusters;
use crate::estimate::correction::Correction;
use crate::estimate::dyadic::{QueryValue, dyadic_values};
use crate::estimate::series::Series;
use crate::estimate::terms::{Crossed, Joint, Terms, differences};
use crate::plan::{Pairing, Plan};
use crate::value::Estimate;

/// Indices into [`Series::ESTIMATORS`], which is the order of the bootstrap's columns.
pub(crate) const DIRECT: usize = 0;
pub(crate) const CORRECTED: usize = 1;
pub(crate) const VCLUB: usize = 2;
pub(crate) const AVERAGED: usize = 3;
pub(crate) const AVERAGED_LIMIT: usize = 4;
pub(crate) const INFO_NCE: usize = 5;

/// Returns the bootstrap's column for an estimator at a point.
pub(crate) fn column(point: usize, estimator: usize) -> usize {
    Series::ESTIMATORS.len() * point + estimator
}

/// The contributions of each document to the estimators at one point, in nats. Marginal terms are those of the same
/// `y`, whatever the plan's [`Pairing`]: the pairing changes no mean.
pub(crate) struct Contributions {
    pub(crate) direct: Vec<f64>,
    pub(crate) corrected: Option<Vec<f64>>,
    vclub: ContextMean,
    /// The number of contexts from other texts that each document has at least.
    pub(crate) unrelated_contexts: usize,
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
    /// The degrees of freedom of that error.
    pub(crate) freedom: f64,
}

impl Contributions {
    pub(crate) fn new(terms: &Terms, plan: &Plan, correction: Option<Correction>) -> Self {
        let corrected = correction.map(|correction| correction.marginal(terms));
        let (clusters, vclub_queries) = (Clusters::of(plan), vclub_queries(terms));
        let contexts = terms.unrelated(plan);
        let unrelated_contexts = contexts.first().map_or(0, Vec::len);
        let averaged = (unrelated_contexts >= 2).then(|| Averaged::new(&terms.conditional, &contexts, &clusters));
        Self {
            direct: differences(&terms.conditional, &terms.marginal),
            corrected: corrected.as_ref().map(|marginal| differences(&terms.conditional, marginal)),
            vclub: ContextMean {
                values: differences(&terms.conditional, &terms.crossed_means()),
                of_clusters: dyadic_values(&clusters, &vclub_queries),
                queries: vclub_queries,
            },
            unrelated_contexts,
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
            _ => self.context_mean(estimator).map(|mean| mean.values.as_slice()),
        }
    }

    /// Returns an estimator that has contexts; `None` for others, and if it was not computed.
    fn context_mean(&self, estimator: usize) -> Option<&ContextMean> {
        let averaged = self.averaged.as_ref();
        match estimator {
            VCLUB => Some(&self.vclub),
            AVERAGED => averaged.and_then(|averaged| averaged.curve.last()),
            AVERAGED_LIMIT => averaged.and_then(Averaged::converged_limit).map(|limit| &limit.mean),
            INFO_NCE => averaged.map(|averaged| &averaged.info_nce),
            _ => None,
        }
    }

    /// Returns the clusters' values of an estimator; `None` if it was not computed. Their mean is the estimate, and the
    /// standard error of their mean is that of the estimate.
    pub(crate) fn of_clusters(&self, estimator: usize) -> Option<Vec<f64>> {
        match self.context_mean(estimator) {
            Some(mean) => Some(mean.of_clusters.clone()),
            None => self.of(estimator).map(|values| self.clusters.means(values)),
        }
    }

    /// Returns `true` if several documents share a context in the estimates of a series.
    pub(crate) fn has_shared_contexts(&self, series: Series) -> bool {
        let has_several = self.vclub.queries.first().is_some_and(|queries| queries.len() > 1);
        has_several && !matches!(series, Series::Direct | Series::Corrected)
    }

    /// Returns the values of each document's queries for an estimator with contexts; empty for others.
    fn queries(&self, estimator: usize) -> &[Vec<QueryValue>] {
        self.context_mean(estimator).map_or(&[], |mean| &mean.queries)
    }

    /// Returns the mean of one estimator minus that of another at two points, with its standard error over clusters;
    /// `None` if one of them was not computed. The values of the same query are subtracted, so what both estimators
    /// share cancels. If only one has contexts, it is `to`.
    pub(crate) fn difference(to: (&Self, usize), from: (&Self, usize)) -> Option<Estimate> {
        let (values, subtracted) = (to.0.of(to.1)?, from.0.of(from.1)?);
        let (mut queries, of_from) = (to.0.queries(to.1).to_vec(), from.0.queries(from.1));
        for (document, of_document) in queries.iter_mut().enumerate() {
            for (index, query) in of_document.iter_mut().enumerate() {
                query.value -= of_from.get(document).map_or(subtracted[document], |queries| queries[index].value);
            }
        }
        match queries.is_empty() {
            true => Some(to.0.clusters.differences(subtracted, values)),
            false => Some(Estimate::of(&dyadic_values(&to.0.clusters, &queries))),
        }
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
        (!differences.is_empty()).then(|| Self { difference, freedom: clusters.freedom() })
    }
}

impl PairingErrors {
    /// Returns the standard errors of the mean of conditional minus marginal terms.
    fn new(terms: &Terms, plan: &Plan, marginal: &[f64]) -> Self {
        let clusters = Clusters::of(plan);
        let same = clusters.estimate(&differences(&terms.conditional, marginal)).error;
        // The marginal terms are from other texts, so this error is over pairs of texts.
        let query = |(own, &x): (&f64, &usize)| vec![QueryValue { x, value: own - marginal[x] }];
        let crossed: Vec<Vec<QueryValue>> = terms.conditional.iter().zip(plan.partners()).map(query).collect();
        Self { same, crossed: Estimate::of(&dyadic_values(&clusters, &crossed)).error }
    }

    /// Returns the error with a pairing.
    pub(crate) fn get(self, pairing: Pairing) -> f64 {
        match pairing {
            Pairing::Same => self.same,
            Pairing::Crossed => self.crossed,
        }
    }
}

/// Returns the values of each document's queries for vCLUB: `ln q(y_i|x_i) - ln q(y_i|x_j)`.
fn vclub_queries(terms: &Terms) -> Vec<Vec<QueryValue>> {
    let mut queries = Vec::with_capacity(terms.conditional.len());
    for (own, contexts) in terms.conditional.iter().zip(&terms.crossed) {
        let query = |&Crossed { x, logprob }: &Crossed| QueryValue { x, value: own - logprob };
        queries.push(contexts.iter().map(query).collect());
    }
    queries
}

/// Returns one row per document, with a [`column`] for each estimator at each point. The columns of an estimator that
/// was not computed are 0.
pub(crate) fn rows(points: &[Contributions], documents: usize) -> Vec<Vec<f64>> {
    let mut rows = Vec::with_capacity(documents);
    for document in 0..documents {
        let mut row = Vec::with_capacity(Series::ESTIMATORS.len() * points.len());
        for point in points {
            row.extend(
                (0..Series::ESTIMATORS.len())
                    .map(|estimator| point.of(estimator).map_or(0.0, |values| values[document])),
            );
        }
        rows.push(row);
    }
    rows
}

/// Returns one row per cluster, with the same columns as [`rows`].
pub(crate) fn cluster_rows(points: &[Contributions], clusters: &Clusters) -> Vec<Vec<f64>> {
    let mut rows = vec![Vec::with_capacity(Series::ESTIMATORS.len() * points.len()); clusters.count()];
    for point in points {
        for estimator in 0..Series::ESTIMATORS.len() {
            let values = point.of_clusters(estimator).unwrap_or_else(|| vec![0.0; rows.len()]);
            rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
        }
    }
    rows
}
