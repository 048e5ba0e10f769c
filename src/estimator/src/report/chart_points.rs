//! Conversion of estimates to chart points, and the charts' style sheet.

pub(crate) use surprisal_chart::{Curve, LogLogChart as Chart, Mark};
use surprisal_chart::{Point, style};

use crate::value::Estimate;

/// Returns the style sheet of charts: colors for light and dark pages, lines and text.
pub(crate) fn chart_style() -> String {
    style(include_str!("colours.css"), include_str!("series.css"))
}

/// Converts estimates to chart points. A point's error bar is the estimate's confidence interval, or ± one standard
/// error if the estimate has no interval.
pub(crate) fn with_bars(estimates: &[(f64, Estimate)]) -> Vec<Point> {
    let point = |&(x, estimate): &(f64, Estimate)| {
        let Estimate { value, error, interval } = estimate;
        Point { x, value, bar: interval.unwrap_or([value - error, value + error]), text: estimate.to_string() }
    };
    estimates.iter().map(point).collect()
}
