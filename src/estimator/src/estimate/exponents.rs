//! Confidence intervals of power-law exponents.

use crate::estimate::PointEstimate;
use crate::estimate::bootstrap::{Bootstrap, CONFIDENCE_LEVEL};
use crate::estimate::contributions::Contributions;
use crate::estimate::series::Series;
use crate::estimate::series_points::{SeriesPoints, series_points};
use crate::fit::FitMethod;
use crate::plan::Point;
use crate::value::Estimate;

/// The 95 % BCa bootstrap interval of a fit's exponent, from resampled texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExponentInterval {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The estimator.
    pub series: Series,
    /// The method of the fit.
    pub method: FitMethod,
    /// The interval.
    pub interval: [f64; 2],
}

/// Returns the intervals of all exponents that have one. Fits each resample with the same methods and standard errors
/// as the estimates.
pub(crate) fn exponent_intervals(
    points: &[Point],
    contributions: &[Contributions],
    estimates: &[PointEstimate],
    bootstrap: &Bootstrap<'_>,
) -> Vec<ExponentInterval> {
    let mut intervals = Vec::new();
    for SeriesPoints { ratio, series, indices, lengths, columns } in series_points(points, contributions) {
        let errors: Vec<f64> = indices.iter().filter_map(|&index| Some(estimates[index].get(series)?.error)).collect();
        for method in FitMethod::ALL {
            let exponent = |means: &[f64]| {
                let estimates =
                    columns.iter().zip(&errors).map(|(&column, &error)| Estimate::new(means[column], error));
                let resampled: Vec<_> = lengths.iter().map(|&length| length as f64).zip(estimates).collect();
                Some(method.fit(&resampled)?.exponent)
            };
            let interval = bootstrap.interval(CONFIDENCE_LEVEL, exponent);
            intervals.extend(interval.map(|interval| ExponentInterval { ratio, series, method, interval }));
        }
    }
    intervals
}
