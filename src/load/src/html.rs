//! Load curves as one page that needs nothing else, and as one SVG.

use std::path::Path;

use crate::plot::{Chart, Series, escape};
use crate::report::write_atomically;
use crate::{Class, Error, Load, Outcome, Report};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
svg{width:100%;margin:.5rem 0 1rem}pre{overflow-x:auto;font-size:13px;line-height:1.4}";

impl Report {
    /// Load curves of reports of the same loads, as a page without scripts or other files.
    pub fn html(reports: &[Report]) -> String {
        let title = reports.iter().map(|report| report.server.as_str()).collect::<Vec<_>>().join(" and ");
        let charts: String = charts(reports).iter().map(Chart::svg).collect();
        let texts: String =
            reports.iter().map(|report| format!("<pre>{}</pre>\n", escape(&report.to_string()))).collect();
        let workload = reports.first().map(|report| &report.workload);
        let workload = workload.and_then(|workload| serde_json::to_string(workload).ok()).unwrap_or_default();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Load on {title}</title>\n\
             <style>{STYLE}</style>\n<h1>Load on {title}</h1>\n<p>Each request: <code>{workload}</code></p>\n{charts}{texts}</html>\n",
            title = escape(&title),
            workload = escape(&workload),
        )
    }

    /// Writes the page, or the curves alone to a path that ends in `.svg`; atomically.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_curves(reports: &[Report], path: &Path) -> Result<(), Error> {
        let text = if path.extension().is_some_and(|extension| extension == "svg") {
            stacked(&charts(reports))
        } else {
            Self::html(reports)
        };
        write_atomically(path, text.as_bytes())
    }
}

/// One chart below the other.
fn stacked(charts: &[Chart]) -> String {
    let height = 390 * charts.len();
    let parts = charts.iter().enumerate().map(|(i, chart)| {
        chart.svg().replacen("<svg ", &format!("<svg y=\"{}\" width=\"720\" height=\"380\" ", 390 * i), 1)
    });
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\">\n{}</svg>\n",
        parts.collect::<String>()
    )
}

/// Throughput against load, and latency against load.
fn charts(reports: &[Report]) -> Vec<Chart> {
    let open = reports.iter().flat_map(|report| &report.outcomes).any(|outcome| outcome.load.is_open());
    let x = if open { "requests offered a second" } else { "clients" };
    let chart = |y: &str, logarithmic, series| Chart { x: x.into(), y: y.into(), logarithmic, series };
    let mut throughput = Vec::new();
    let mut latency = Vec::new();
    for (colour, report) in reports.iter().enumerate() {
        let name = report.server.split("://").next().unwrap_or_default().split('+').next().unwrap_or_default();
        let name = match (reports.len(), name) {
            (1, _) => String::new(),
            (_, "http") => "surprisal ".into(),
            (_, api) => format!("{api} "),
        };
        let curve = |label: &str, dashed, read: &dyn Fn(&Outcome) -> Option<f64>| Series {
            label: format!("{name}{label}"),
            colour,
            dashed,
            points: points(report, read),
        };
        throughput.push(curve("answered", false, &|outcome| Some(outcome.scored_tokens_per_second)));
        for (class, label) in [(Class::Bulk, ""), (Class::Interactive, "waited for, ")] {
            let read = move |quantile: fn(&crate::Latency) -> f64| {
                move |outcome: &Outcome| outcome.latency.get(&class).map(quantile)
            };
            let curves = [
                curve(&format!("{label}p50"), false, &read(|latency| latency.p50)),
                curve(&format!("{label}p99"), true, &read(|latency| latency.p99)),
            ];
            let shift = if class == Class::Interactive { 2 } else { 0 };
            let shifted = curves.into_iter().map(|curve| Series { colour: curve.colour + shift, ..curve });
            latency.extend(shifted.filter(|curve| !curve.points.is_empty()));
        }
    }
    vec![chart("tokens scored a second", false, throughput), chart("ms", true, latency)]
}

/// A number of each outcome over its load; rounds of one load are averaged.
fn points(report: &Report, read: &dyn Fn(&Outcome) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut sums: Vec<(f64, f64, f64)> = Vec::new();
    for outcome in &report.outcomes {
        let Some(value) = read(outcome) else { continue };
        let place = match outcome.load {
            Load::Closed { clients } => clients as f64,
            Load::Constant { rate } | Load::Poisson { rate } => rate,
        };
        match sums.iter_mut().find(|sum| sum.0 == place) {
            Some(sum) => *sum = (place, sum.1 + value, sum.2 + 1.0),
            None => sums.push((place, value, 1.0)),
        }
    }
    let mut points: Vec<(f64, f64)> = sums.into_iter().map(|(place, sum, count)| (place, sum / count)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}
