//! Conversion of estimates and fits to the parts of charts.

pub(crate) use surprisal_chart::{Color, Curve, EstimateChart as Chart, Mark, Scale};
use surprisal_chart::{Label, Point};

use crate::estimate::PositionBin;
use crate::fit::Fit;
use crate::number::significant;
use crate::report::Report;
use crate::value::Estimate;

/// Converts estimates to chart points. A point's error bar is the estimate's confidence interval, or ± one standard
/// error if the estimate has no interval.
pub(crate) fn with_bars(estimates: &[(f64, Estimate)]) -> Vec<Point> {
    estimates.iter().map(|(x, estimate)| point(*x, String::new(), estimate)).collect()
}

fn point(x: f64, place: String, estimate: &Estimate) -> Point {
    let Estimate { value, error, interval } = *estimate;
    Point { x, value, bar: interval.unwrap_or([value - error, value + error]), text: estimate.to_string(), place }
}

/// Returns the line of a fit over the range of some points.
pub(crate) fn along(points: &[(f64, Estimate)], fit: &Fit) -> Vec<(f64, f64)> {
    points.iter().map(|(place, _)| (*place, fit.at(*place))).collect()
}

/// Returns the equation of a fit: `2.18·L^0.62`, with the exponent raised.
pub(crate) fn equation(fit: &Fit, variable: &str) -> Label {
    let amplitude = significant(fit.amplitude, 3);
    let base = Label::from(format!("{amplitude}·{variable}").as_str());
    base.raised(&format!("{:.2}", fit.exponent)).then(&fit.signed_bias())
}

/// Returns the chart of surprisal by position, with one curve for each report.
pub(crate) fn surprisal_chart(title: String, unit: &'static str, curves: Vec<Curve>) -> Chart {
    let (x, y) = ("position in the document, from 1".to_owned(), format!("-ln q in {unit}"));
    Chart { title, x, y, unit, scale: Scale::Logarithmic, curves }
}

/// Returns the curve of surprisal by position: the means over logarithmic bins, with a band of their intervals. A report
/// of an earlier version has no bins; its curve is a line through the means of single positions.
pub(crate) fn surprisal_curve(report: &Report, color: Color, mark: Mark, label: &str) -> Curve {
    let curve = Curve::new(color, label);
    if report.nll_bins.is_empty() {
        let means: Vec<(f64, Estimate)> =
            report.nll.iter().enumerate().map(|(position, estimate)| (1.0 + position as f64, *estimate)).collect();
        let line = means.iter().map(|(position, estimate)| (*position, estimate.value)).collect();
        return Curve { points: with_bars(&means), line, ..curve };
    }
    let (points, line) = bin_points(&report.nll_bins);
    Curve { points, line, mark, band: true, ..curve }
}

/// Returns the points of a curve over ranges of positions, and the line that joins them.
pub(crate) fn bin_points(bins: &[PositionBin]) -> (Vec<Point>, Vec<(f64, f64)>) {
    let points = bins.iter().map(|bin| point(bin.center(), bin.positions(), &bin.estimate)).collect();
    (points, bins.iter().map(|bin| (bin.center(), bin.estimate.value)).collect())
}

/// Returns each chart as two files: a vector graphic for pages and one for papers.
pub(crate) fn pictures(charts: Vec<(String, Chart)>) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::with_capacity(2 * charts.len());
    for (name, chart) in charts {
        let drawing = chart.drawing();
        files.push((format!("{name}.svg"), drawing.svg().into_bytes()));
        files.push((format!("{name}.pdf"), drawing.pdf()));
    }
    files
}
