//! The points of each series: those that a law is fitted to.

use crate::estimate::contributions::{Contributions, column};
use crate::estimate::series::Series;
use crate::plan::Point;

/// The points of one series at one ratio.
pub(crate) struct SeriesPoints {
    pub(crate) ratio: usize,
    pub(crate) series: Series,
    /// The indices of the points in the plan.
    pub(crate) indices: Vec<usize>,
    pub(crate) lengths: Vec<usize>,
    /// The columns of the rows that belong to the points.
    pub(crate) columns: Vec<usize>,
}

/// Returns the points of each fitted series at each ratio, without the points at which it was not computed.
pub(crate) fn series_points(points: &[Point], contributions: &[Contributions]) -> Vec<SeriesPoints> {
    let mut ratios: Vec<usize> = points.iter().map(|point| point.ratio).collect();
    ratios.dedup();
    let mut all = Vec::new();
    for ratio in ratios {
        for (estimator, series) in Series::ESTIMATORS.into_iter().enumerate().filter(|(_, series)| series.has_fit()) {
            let (mut indices, mut lengths, mut columns) = (Vec::new(), Vec::new(), Vec::new());
            for (index, (point, contributions)) in points.iter().zip(contributions).enumerate() {
                if point.ratio == ratio && contributions.of(estimator).is_some() {
                    indices.push(index);
                    lengths.push(point.length());
                    columns.push(column(index, estimator));
                }
            }
            if !lengths.is_empty() {
                all.push(SeriesPoints { ratio, series, indices, lengths, columns });
            }
        }
    }
    all
}
