//! Contributions: one value per estimator and document. An estimate is the mean of its contributions.

use crate::estimate::PairingErrors;
use crate::estimate::correction::Correction;
use crate::estimate::series::Series;
use crate::estimate::terms::Terms;
use crate::plan::{Pairing, Plan};
use crate::value::Estimate;

/// The estimators, in the order of the bootstrap's columns.
pub(crate) const ESTIMATORS: [Series; 3] = [Series::Direct, Series::Corrected, Series::Vclub];

/// Indices into [`ESTIMATORS`].
pub(crate) const DIRECT: usize = 0;
pub(crate) const CORRECTED: usize = 1;
pub(crate) const VCLUB: usize = 2;

/// Returns the bootstrap's column for an estimator at a point.
pub(crate) fn column(point: usize, estimator: usize) -> usize {
    ESTIMATORS.len() * point + estimator
}

/// The contributions of each document to the estimators at one point, in nats.
pub(crate) struct Contributions {
    pub(crate) direct: Vec<f64>,
    pub(crate) corrected: Option<Vec<f64>>,
    pub(crate) vclub: Vec<f64>,
}

impl Contributions {
    pub(crate) fn new(terms: &Terms, plan: &Plan, correction: Option<Correction>) -> Self {
        let direct = |marginal: &[f64]| direct(terms, plan, plan.pairing(), marginal);
        Self {
            direct: direct(&terms.marginal),
            corrected: correction.map(|correction| direct(&correction.marginal(terms))),
            vclub: differences(&terms.conditional, &terms.crossed),
        }
    }
}

/// Returns the direct estimator's contributions: conditional minus marginal terms, paired by `pairing`.
fn direct(terms: &Terms, plan: &Plan, pairing: Pairing, marginal: &[f64]) -> Vec<f64> {
    match pairing {
        Pairing::Same => differences(&terms.conditional, marginal),
        Pairing::Crossed => {
            let partners: Vec<f64> = plan.partners().iter().map(|&j| marginal[j]).collect();
            differences(&terms.conditional, &partners)
        }
    }
}

/// Returns the direct estimate's standard error with each pairing.
pub(crate) fn pairing_errors(terms: &Terms, plan: &Plan) -> PairingErrors {
    let error = |pairing| Estimate::of(&direct(terms, plan, pairing, &terms.marginal)).error;
    PairingErrors { same: error(Pairing::Same), crossed: error(Pairing::Crossed) }
}

fn differences(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left - right).collect()
}

/// Returns the bootstrap's rows: one per document, with a [`column`] for each estimator at each point. Without a
/// correction, the corrected columns are 0.
pub(crate) fn bootstrap_rows(points: &[Contributions], documents: usize) -> Vec<Vec<f64>> {
    let mut rows = Vec::with_capacity(documents);
    for document in 0..documents {
        let mut row = Vec::with_capacity(ESTIMATORS.len() * points.len());
        for point in points {
            let corrected = point.corrected.as_ref().map_or(0.0, |corrected| corrected[document]);
            row.extend([point.direct[document], corrected, point.vclub[document]]);
        }
        rows.push(row);
    }
    rows
}
