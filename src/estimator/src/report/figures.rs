//! The charts of a report: mutual information at each ratio, two-point information, and surprisal by position.

use crate::estimate::Series;
use crate::fit::FitMethod;
use crate::report::Report;
use crate::report::chart_points::{
    Chart, Color, Curve, Mark, Scale, along, equation, surprisal_chart, surprisal_curve, with_bars,
};
use crate::statistics::TwoPoint;
use crate::value::Estimate;

impl Report {
    /// Returns the charts, each with its file name (without extension).
    pub(crate) fn charts(&self) -> Vec<(String, Chart)> {
        let bipartite = self.ratios().into_iter().map(|ratio| (format!("bipartite-{ratio}"), self.bipartite(ratio)));
        let averaged = self.averaged_charts().into_iter().chain(self.convergence_charts());
        let two_point = self.two_point().map(|chart| ("two-point".to_owned(), chart));
        let nll = (!self.nll.is_empty()).then(|| ("nll".to_owned(), self.nll_chart()));
        let rate = self.entropy_rate_chart().map(|chart| ("entropy-rate".to_owned(), chart));
        let divergence = self.divergence_chart().map(|chart| ("divergence".to_owned(), chart));
        bipartite.chain(averaged).chain(two_point).chain(nll).chain(rate).chain(divergence).collect()
    }

    fn bipartite(&self, ratio: usize) -> Chart {
        let present = |series: &Series| !series.is_averaged() && !self.points(ratio, *series).is_empty();
        Chart {
            title: format!("{}, L/ℓ = {ratio}", self.title),
            x: "L, tokens in x and y together".to_owned(),
            y: format!("I(x; y) in {}", self.unit.name()),
            unit: self.unit.name(),
            scale: Scale::Logarithmic,
            curves: Series::ALL.into_iter().filter(present).map(|series| self.curve(ratio, series)).collect(),
        }
    }

    /// Returns the curve of a series at one ratio. The line of an exact series joins its points; the line of an estimate
    /// is its fit.
    pub(crate) fn curve(&self, ratio: usize, series: Series) -> Curve {
        let points = self.points(ratio, series);
        let fit = self.fit_of(ratio, series, FitMethod::LeastSquares);
        let (color, mark, shift) = match series {
            Series::Truth => (Color::INK, Mark::None, 0.0),
            Series::Direct => (Color::SERIES[0], Mark::Circle, -5.0),
            Series::Corrected => (Color::SERIES[1], Mark::Square, 5.0),
            Series::Vclub => (Color::SERIES[2], Mark::Triangle, 0.0),
            Series::Averaged => (Color::SERIES[3], Mark::Triangle, 0.0),
            Series::AveragedLimit => (Color::SERIES[4], Mark::Square, 5.0),
            Series::InfoNce => (Color::SERIES[5], Mark::Circle, 0.0),
            Series::VclubLimit => (Color::SERIES[2], Mark::None, 0.0),
        };
        let mut curve = Curve { mark, shift, ..Curve::new(color, label(series)) };
        (curve.points, curve.dashed) = (with_bars(&points), series == Series::VclubLimit);
        if series == Series::Truth {
            curve.line_width = 2.0;
        }
        if mark == Mark::None {
            curve.line = points.iter().map(|(length, estimate)| (*length, estimate.value)).collect();
        } else if let Some(fit) = fit {
            curve.title = format!("{}: fit {fit}", label(series));
            (curve.equation, curve.line) = (Some(equation(fit, "L")), along(&points, fit));
        }
        curve
    }

    fn two_point(&self) -> Option<Chart> {
        let two_point = self.two_point.as_ref()?;
        let points: Vec<(f64, Estimate)> =
            two_point.points.iter().map(|point| (point.distance as f64, point.estimate)).collect();
        let mut curve = Curve {
            points: with_bars(&points),
            mark: Mark::Circle,
            ..Curve::new(Color::SERIES[0], "two-point information")
        };
        if let Some(fit) = two_point.paper.as_ref().or(two_point.fit.as_ref()) {
            curve.title = format!("fit {}", fit.law("d"));
            (curve.equation, curve.line) = (Some(equation(fit, "d")), along(&points, fit));
        }
        Some(Chart {
            title: format!("{}, two-point information", self.title),
            x: "d, distance in tokens".to_owned(),
            y: format!("I(d) in {}", self.unit.name()),
            unit: self.unit.name(),
            scale: Scale::Logarithmic,
            curves: [curve].into_iter().chain(baseline_curves(two_point)).collect(),
        })
    }

    fn nll_chart(&self) -> Chart {
        let curve = surprisal_curve(self, Color::SERIES[0], Mark::Circle, "mean surprisal of a token");
        surprisal_chart(format!("{}, surprisal by position", self.title), self.unit.name(), vec![curve])
    }
}

/// Returns the curves of the shuffled baseline and of the difference from it; none without a baseline.
fn baseline_curves(two_point: &TwoPoint) -> Vec<Curve> {
    let (mut baseline, mut difference) = (Vec::new(), Vec::new());
    for point in &two_point.points {
        let Some(found) = point.baseline else { return Vec::new() };
        baseline.push((point.distance as f64, Estimate::new(found.value, found.error)));
        difference.push((point.distance as f64, found.difference));
    }
    let shuffled = Curve {
        line: baseline.iter().map(|(distance, estimate)| (*distance, estimate.value)).collect(),
        points: with_bars(&baseline),
        mark: Mark::Triangle,
        ..Curve::new(Color::SERIES[2], "shuffled baseline")
    };
    let mut rest =
        Curve { points: with_bars(&difference), mark: Mark::Square, ..Curve::new(Color::SERIES[1], "difference") };
    if let Some(fit) = &two_point.difference_fit {
        (rest.equation, rest.line) = (Some(equation(fit, "d")), along(&difference, fit));
    }
    vec![shuffled, rest]
}

fn label(series: Series) -> &'static str {
    match series {
        Series::Truth => "truth",
        Series::Direct => "direct estimate",
        Series::Corrected => "direct, n-gram corrected",
        Series::Vclub => "vCLUB estimate",
        Series::Averaged => "averaged marginal: upper bound",
        Series::AveragedLimit => "averaged marginal, K → ∞",
        Series::InfoNce => "InfoNCE: lower bound",
        Series::VclubLimit => "vCLUB limit",
    }
}
