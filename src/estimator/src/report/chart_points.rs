//! Estimates as points of a chart, and the style of charts.

pub(crate) use surprisal_chart::{Curve, LogLogChart as Chart, Mark};
use surprisal_chart::{Point, style};

use crate::value::Estimate;

/// Returns the colours, lines and text of charts, on light and on dark.
pub(crate) fn chart_style() -> String {
    style(include_str!("colours.css"), include_str!("series.css"))
}

/// Returns estimates as points, whose error bars are the intervals or else one standard error.
pub(crate) fn with_bars(estimates: &[(f64, Estimate)]) -> Vec<Point> {
    let point = |&(x, estimate): &(f64, Estimate)| {
        let Estimate { value, error, interval } = estimate;
        Point { x, value, bar: interval.unwrap_or([value - error, value + error]), text: estimate.to_string() }
    };
    estimates.iter().map(point).collect()
}
