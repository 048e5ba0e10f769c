//! Load curves: throughput and latency against load.

use surprisal_chart::{Color, Drawing, Line, LineChart};

use super::Report;
use crate::load::Load;
use crate::outcome::{Latency, Outcome};
use crate::workload::LatencyClass;

/// The colors of each report's lines: throughput and bulk latencies first, then interactive latencies.
const LINE_COLORS: [[Color; 2]; 2] = [[Color::SERIES[0], Color::SERIES[1]], [Color::SERIES[2], Color::SERIES[3]]];

/// Returns the load curves as one drawing.
pub(super) fn drawing(reports: &[Report]) -> Drawing {
    LineChart::stack(charts(reports).iter().map(|(_, chart)| chart))
}

/// Returns the charts of throughput and latency against load, with headings.
pub(super) fn charts(reports: &[Report]) -> [(&'static str, LineChart); 2] {
    let open = reports.iter().flat_map(|report| &report.outcomes).any(|outcome| outcome.load.is_open());
    let x = if open { "requests offered per second" } else { "clients" };
    let chart = |y: &str, logarithmic, lines| LineChart { x: x.into(), y: y.into(), logarithmic, lines };
    let mut throughput: Vec<Line> = offered(reports).into_iter().collect();
    let mut latency = Vec::new();
    for (report, [bulk, interactive]) in reports.iter().zip(LINE_COLORS.into_iter().cycle()) {
        let server = if reports.len() == 1 { String::new() } else { format!("{}, ", dialect_name(report)) };
        let points = mean_points(report, |outcome| Some(outcome.scored_tokens_per_second));
        throughput.push(Line::new(bulk, format!("{server}answered"), points));
        latency.extend(latency_lines(report, LatencyClass::Bulk, &server, bulk));
        latency.extend(latency_lines(
            report,
            LatencyClass::Interactive,
            &format!("{server}interactive, "),
            interactive,
        ));
    }
    [
        ("Throughput against load", chart("tokens scored per second", false, throughput)),
        ("Latency against load", chart("latency from due time, ms (log scale)", true, latency)),
    ]
}

/// Returns the name of the dialect in a report's server address.
fn dialect_name(report: &Report) -> &str {
    let scheme = report.server.split("://").next().unwrap_or_default();
    match scheme.split('+').next().unwrap_or_default() {
        "http" => "surprisal",
        name => name,
    }
}

/// Returns the lines of the median and the 99th percentile of a class's latencies, if the report has any.
fn latency_lines(report: &Report, latencies: LatencyClass, prefix: &str, color: Color) -> impl Iterator<Item = Line> {
    let line = |name: &str, dashed, quantile: fn(&Latency) -> f64| Line {
        dashed,
        ..Line::new(
            color,
            format!("{prefix}{name}"),
            mean_points(report, |outcome| outcome.latency.get(&latencies).map(quantile)),
        )
    };
    let lines = [line("p50", false, |latency| latency.p50), line("p99", true, |latency| latency.p99)];
    lines.into_iter().filter(|line| !line.points.is_empty())
}

/// Returns the line of the offered load, in tokens per second; `None` for closed loops, or without answers.
fn offered(reports: &[Report]) -> Option<Line> {
    let outcomes = || reports.iter().flat_map(|report| &report.outcomes);
    let tokens: u64 = outcomes().map(|outcome| outcome.scored_tokens).sum();
    let requests: u64 = outcomes().map(|outcome| outcome.requests).sum();
    let mut rates: Vec<f64> = outcomes().filter_map(|outcome| outcome.load.rate()).collect();
    rates.sort_unstable_by(f64::total_cmp);
    rates.dedup();
    if rates.is_empty() || requests == 0 {
        return None;
    }
    let points = rates.into_iter().map(|rate| (rate, rate * tokens as f64 / requests as f64)).collect();
    Some(Line { dashed: true, ..Line::new(Color::SOFT, "offered", points) })
}

/// Returns the points of one number against the load, averaged over the rounds of each load.
fn mean_points(report: &Report, number: impl Fn(&Outcome) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut sums: Vec<(f64, f64, f64)> = Vec::new();
    for outcome in &report.outcomes {
        let Some(value) = number(outcome) else { continue };
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
