//! Confidence intervals of power-law exponents.

use crate::estimate::PointEstimate;
use crate::estimate::bootstrap::{Bootstrap, CONFIDENCE_LEVEL};
use crate::estimate::contributions::{ESTIMATORS, column};
use crate::estimate::series::Series;
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

/// One point of a series, and the bootstrap's column with the point's resampled values.
struct ResampledPoint {
    length: f64,
    column: usize,
    error: f64,
}

/// Returns the intervals of all exponents that have one. Fits each resample with the same methods and standard errors
/// as the estimates.
pub(crate) fn exponent_intervals(
    points: &[Point],
    estimates: &[PointEstimate],
    bootstrap: &Bootstrap<'_>,
) -> Vec<ExponentInterval> {
    let mut ratios: Vec<usize> = points.iter().map(|point| point.ratio).collect();
    ratios.dedup();
    let mut intervals = Vec::new();
    for ratio in ratios {
        for (estimator, series) in ESTIMATORS.into_iter().enumerate().filter(|(_, series)| series.has_fit()) {
            let Some(points) = points_of(points, estimates, ratio, estimator) else { continue };
            for method in FitMethod::ALL {
                let exponent = |means: &[f64]| {
                    let estimate = |point: &ResampledPoint| Estimate::new(means[point.column], point.error);
                    let resampled: Vec<_> = points.iter().map(|point| (point.length, estimate(point))).collect();
                    Some(method.fit(&resampled)?.exponent)
                };
                let interval = bootstrap.interval(CONFIDENCE_LEVEL, exponent);
                intervals.extend(interval.map(|interval| ExponentInterval { ratio, series, method, interval }));
            }
        }
    }
    intervals
}

/// Returns the points of one estimator at one ratio; `None` if the estimator was not computed.
fn points_of(
    points: &[Point],
    estimates: &[PointEstimate],
    ratio: usize,
    estimator: usize,
) -> Option<Vec<ResampledPoint>> {
    let mut resampled = Vec::new();
    for (index, (point, estimate)) in points.iter().zip(estimates).enumerate() {
        if let (true, Some(Estimate { error, .. })) = (point.ratio == ratio, estimate.get(ESTIMATORS[estimator])) {
            resampled.push(ResampledPoint { length: point.length() as f64, column: column(index, estimator), error });
        }
    }
    (!resampled.is_empty()).then_some(resampled)
}
