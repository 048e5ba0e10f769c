//! Laws of growth fitted to the estimates with the covariance between points, and local exponents.

use serde::{Deserialize, Serialize};

use crate::estimate::bootstrap::{Bootstrap, CONFIDENCE_LEVEL};
use crate::estimate::clusters::Clusters;
use crate::estimate::contributions::Contributions;
use crate::estimate::scatter::{Sampling, Scatter};
use crate::estimate::series::Series;
use crate::estimate::series_points::{SeriesPoints, series_points};
use crate::fit::{CorrelatedMeans, Law, LawFit};
use crate::plan::Point;

/// The laws fitted to one series at one ratio `L/ℓ`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesLaws {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The series.
    pub series: Series,
    /// The observations behind the covariance.
    pub sampling: Sampling,
    /// `ν`: the degrees of freedom of the covariance.
    pub freedom: usize,
    /// The fits, in the order of [`Law::ALL`].
    pub laws: Vec<LawFit>,
}

impl SeriesLaws {
    /// Returns the fit of a law; `None` if there is none.
    pub fn get(&self, law: Law) -> Option<&LawFit> {
        self.laws.iter().find(|fit| fit.law == law)
    }

    /// Returns the fit with the smallest AICc; `None` if there are no fits.
    pub fn best(&self) -> Option<&LawFit> {
        self.laws.iter().min_by(|a, b| a.aicc.total_cmp(&b.aicc))
    }
}

/// The local exponent between two neighboring points of a series: `ln(I₂/I₁) / ln(L₂/L₁)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalExponent {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The series.
    pub series: Series,
    /// `L₁`, the shorter length.
    pub from: usize,
    /// `L₂`, the longer length.
    pub to: usize,
    /// The exponent.
    pub exponent: f64,
    /// The 95 % BCa bootstrap interval of the exponent; `None` if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

/// Fits all laws to each series at each ratio. `rows` has one row per document, and `cluster_rows` one per cluster.
/// Series without enough points or documents are omitted.
pub(crate) fn fit_laws(
    points: &[Point],
    contributions: &[Contributions],
    clusters: &Clusters,
    rows: &[Vec<f64>],
    cluster_rows: &[Vec<f64>],
) -> Vec<SeriesLaws> {
    let mut fitted = Vec::new();
    for SeriesPoints { ratio, series, lengths, columns, .. } in series_points(points, contributions) {
        let select = |row: &Vec<f64>| columns.iter().map(|&column| row[column]).collect();
        let selected: Vec<Vec<f64>> = rows.iter().map(select).collect();
        let cluster_rows: Vec<Vec<f64>> = cluster_rows.iter().map(select).collect();
        let Some((sampling, scatter)) = Scatter::choose(&selected, &cluster_rows, clusters) else { continue };
        // The scatter within texts does not contain that of contexts which several documents share.
        if sampling == Sampling::Within && contributions.iter().any(|of| of.has_shared_contexts(series)) {
            continue;
        }
        let Scatter { means, covariance, freedom } = scatter;
        let lengths: Vec<f64> = lengths.iter().map(|&length| length as f64).collect();
        let Some(means) = CorrelatedMeans::new(&lengths, &means, &covariance, freedom) else { continue };
        let laws: Vec<LawFit> = Law::ALL.into_iter().filter_map(|law| means.fit(law)).collect();
        if !laws.is_empty() {
            fitted.push(SeriesLaws { ratio, series, sampling, freedom, laws });
        }
    }
    fitted
}

/// Returns the local exponents between all neighboring points with positive estimates.
pub(crate) fn local_exponents(
    points: &[Point],
    contributions: &[Contributions],
    bootstrap: &Bootstrap<'_>,
) -> Vec<LocalExponent> {
    let mut exponents = Vec::new();
    for SeriesPoints { ratio, series, lengths, columns, .. } in series_points(points, contributions) {
        for (lengths, columns) in lengths.windows(2).zip(columns.windows(2)) {
            let growth = (lengths[1] as f64 / lengths[0] as f64).ln();
            let local = |means: &[f64]| {
                let [first, second] = [means[columns[0]], means[columns[1]]];
                (first > 0.0 && second > 0.0).then(|| (second / first).ln() / growth)
            };
            let Some(exponent) = local(bootstrap.means()) else { continue };
            let interval = bootstrap.interval(CONFIDENCE_LEVEL, local);
            exponents.push(LocalExponent { ratio, series, from: lengths[0], to: lengths[1], exponent, interval });
        }
    }
    exponents
}
