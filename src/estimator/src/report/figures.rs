//! The charts of a report: mutual information at each ratio, two-point information, and surprisal by position.

use crate::estimate::Series;
use crate::fit::{Fit, FitMethod};
use crate::report::Report;
use crate::report::chart_points::{Chart, Curve, Mark, with_bars};
use crate::statistics::TwoPoint;
use crate::value::Estimate;

impl Report {
    /// Returns the charts, each with its file name (without extension).
    pub(crate) fn charts(&self) -> Vec<(String, Chart)> {
        let bipartite = self.ratios().into_iter().map(|ratio| (format!("bipartite-{ratio}"), self.bipartite(ratio)));
        let two_point = self.two_point().map(|chart| ("two-point".to_owned(), chart));
        let nll = (!self.nll.is_empty()).then(|| ("nll".to_owned(), self.nll_chart()));
        bipartite.chain(two_point).chain(nll).collect()
    }

    fn bipartite(&self, ratio: usize) -> Chart {
        let curve = |series: Series| {
            let fit = self.fit_of(ratio, series, FitMethod::LeastSquares);
            let points = self.points(ratio, series);
            let (mark, shift) = match series {
                Series::Truth | Series::VclubLimit => (Mark::None, 0.0),
                Series::Direct => (Mark::Circle, -5.0),
                Series::Corrected => (Mark::Square, 5.0),
                Series::Vclub => (Mark::Triangle, 0.0),
            };
            // The line of an exact series joins its points; the line of an estimate is its fit.
            let line = match fit {
                _ if mark == Mark::None => points.iter().map(|(length, e)| (*length, e.value)).collect(),
                Some(fit) => along(&points, fit),
                None => Vec::new(),
            };
            let label = label(series).to_owned();
            let title = fit.map_or_else(|| label.clone(), |fit| format!("{label}: fit {fit}"));
            Curve { class: class(series), label, title, points: with_bars(&points), mark, shift, line }
        };
        let present = |series: &Series| !self.points(ratio, *series).is_empty();
        Chart {
            title: format!("{}, L/ℓ = {ratio}", self.title),
            x: "L, tokens in x and y together".to_owned(),
            y: format!("I(x; y) in {}", self.unit.name()),
            unit: self.unit.name(),
            curves: Series::ALL.into_iter().filter(present).map(curve).collect(),
        }
    }

    fn two_point(&self) -> Option<Chart> {
        let two_point = self.two_point.as_ref()?;
        let points: Vec<(f64, Estimate)> =
            two_point.points.iter().map(|point| (point.distance as f64, point.estimate)).collect();
        let fit = two_point.paper.as_ref().or(two_point.fit.as_ref());
        let curve = Curve {
            class: "direct",
            label: "two-point information".to_owned(),
            title: fit.map_or_else(String::new, |fit| format!("fit {fit}")),
            line: fit.map_or_else(Vec::new, |fit| along(&points, fit)),
            points: with_bars(&points),
            mark: Mark::Circle,
            shift: 0.0,
        };
        Some(Chart {
            title: format!("{}, two-point information", self.title),
            x: "d, distance in tokens".to_owned(),
            y: format!("I(d) in {}", self.unit.name()),
            unit: self.unit.name(),
            curves: [curve].into_iter().chain(baseline_curves(two_point)).collect(),
        })
    }

    fn nll_chart(&self) -> Chart {
        let points: Vec<(f64, Estimate)> =
            self.nll.iter().enumerate().map(|(position, estimate)| (1.0 + position as f64, *estimate)).collect();
        let label = "mean surprisal of a token".to_owned();
        let line = points.iter().map(|(position, estimate)| (*position, estimate.value)).collect();
        Chart {
            title: format!("{}, surprisal by position", self.title),
            x: "position in the document, from 1".to_owned(),
            y: format!("-ln q in {}", self.unit.name()),
            unit: self.unit.name(),
            curves: vec![Curve {
                class: "direct",
                title: label.clone(),
                label,
                points: with_bars(&points),
                mark: Mark::None,
                shift: 0.0,
                line,
            }],
        }
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
    let fit = two_point.difference_fit.as_ref();
    let curve = |class, label: &str, points: &[(f64, Estimate)], mark, line| Curve {
        class,
        label: label.to_owned(),
        title: label.to_owned(),
        points: with_bars(points),
        mark,
        shift: 0.0,
        line,
    };
    let joined = baseline.iter().map(|(distance, estimate)| (*distance, estimate.value)).collect();
    let along_fit = fit.map_or_else(Vec::new, |fit| along(&difference, fit));
    vec![
        curve("vclub", "shuffled baseline", &baseline, Mark::Triangle, joined),
        curve("corrected", "difference", &difference, Mark::Square, along_fit),
    ]
}

fn along(points: &[(f64, Estimate)], fit: &Fit) -> Vec<(f64, f64)> {
    points.iter().map(|(place, _)| (*place, fit.at(*place))).collect()
}

fn class(series: Series) -> &'static str {
    match series {
        Series::Truth => "truth",
        Series::Direct => "direct",
        Series::Corrected => "corrected",
        Series::Vclub => "vclub",
        Series::VclubLimit => "vclub-limit",
    }
}

fn label(series: Series) -> &'static str {
    match series {
        Series::Truth => "truth",
        Series::Direct => "direct estimate",
        Series::Corrected => "direct, n-gram corrected",
        Series::Vclub => "vCLUB estimate",
        Series::VclubLimit => "vCLUB limit",
    }
}
