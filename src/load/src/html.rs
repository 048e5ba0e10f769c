//! Load curves as one page that needs nothing else, and as one SVG.

use std::path::Path;

use crate::plot::{self, Chart, Series, escape, short};
use crate::report::write_atomically;
use crate::{Class, Error, Load, Outcome, Report};

impl Report {
    /// Load curves of reports of the same loads, and their numbers, as a page without scripts or other files.
    pub fn html(reports: &[Report]) -> String {
        let title = reports.iter().map(|report| report.server.as_str()).collect::<Vec<_>>().join(" and ");
        let chart = |(heading, chart): &(&str, Chart)| {
            format!("<section>\n<h2>{heading}</h2>\n<div class=\"scroll\">\n{}</div>\n</section>\n", chart.svg())
        };
        let charts: String = charts(reports).iter().map(chart).collect();
        let tables: String = reports.iter().map(table).collect();
        let workload = reports.first().map(|report| &report.workload);
        let workload = workload.and_then(|workload| serde_json::to_string(workload).ok()).unwrap_or_default();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Load on {title}</title>\n\
             <style>\n{}{}</style>\n</head>\n<body>\n<main>\n<h1>Load on {title}</h1>\n\
             <p>Each request: <code>{workload}</code></p>\n{charts}{tables}</main>\n</body>\n</html>\n",
            plot::STYLE,
            include_str!("page.css"),
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

/// One chart below the other, on a card.
fn stacked(charts: &[(&str, Chart)]) -> String {
    let (mut parts, mut height) = (String::new(), 8.0);
    for (_, chart) in charts {
        let (wide, high) = chart.size();
        parts += &chart.svg().replacen("<svg ", &format!("<svg y=\"{height}\" width=\"{wide}\" height=\"{high}\" "), 1);
        height += high + 8.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\">\n<style>\n{}</style>\n\
         <rect class=\"card\" width=\"720\" height=\"{height}\" rx=\"10\"/>\n{parts}</svg>\n",
        plot::STYLE,
    )
}

/// A report's numbers, a row a load and round.
fn table(report: &Report) -> String {
    let heads = ["load", "requests/s", "tokens/s", "p50, ms", "p90", "p99", "p99.9", "max", "cached", "failed"];
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let rows: String = report.outcomes.iter().flat_map(rows).collect();
    let fingerprint = report.fingerprint.as_ref().map_or(String::new(), |it| format!("Fingerprint {}. ", escape(it)));
    let failures = report.outcomes.iter().flat_map(|outcome| {
        let told = |(kind, failures): (&String, &crate::outcome::Failures)| {
            let text = format!("{}: {} x {kind}: {}", outcome.load, failures.count, failures.example);
            format!("<p>{}</p>\n", escape(&text))
        };
        outcome.failures.iter().map(told).collect::<Vec<_>>()
    });
    format!(
        "<section>\n<h2>{} at {}</h2>\n<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n{}<p>{fingerprint}Token ids below {}, seed {}, {} s of warm-up, surprisal {}. Tokens are those scored; latencies \
         count from the time a request was due; failures have none, but for what was given up.</p>\n</section>\n",
        escape(&report.model),
        escape(&report.server),
        failures.collect::<String>(),
        report.vocabulary,
        report.seed,
        short(report.warm_up),
        escape(&report.version),
    )
}

/// A row for each class of requests, and one where nothing was answered.
fn rows(outcome: &Outcome) -> Vec<String> {
    let row = |class: Class, times: [String; 5]| {
        let load = match class {
            Class::Interactive => format!("{}, waited for", outcome.load),
            Class::Bulk => outcome.load.to_string(),
        };
        let hits = outcome.hit_rate().map_or(String::new(), |rate| format!("{:.1}%", 100.0 * rate));
        let throughput =
            [format!("{:.1}", outcome.requests_per_second), format!("{:.0}", outcome.scored_tokens_per_second)];
        let cells = [load].into_iter().chain(throughput).chain(times);
        let cells = cells.chain([hits, outcome.failed().to_string()]);
        let cells: String = cells.map(|cell| format!("<td>{}</td>", escape(&cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let times = |latency: &crate::Latency| {
        [latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map(|time| format!("{time:.1}"))
    };
    let mut rows: Vec<String> = outcome.latency.iter().map(|(&class, latency)| row(class, times(latency))).collect();
    if rows.is_empty() {
        rows.push(row(Class::Bulk, std::array::from_fn(|_| "–".to_owned())));
    }
    rows
}

/// Throughput against load, and latency against load, each with its heading.
fn charts(reports: &[Report]) -> Vec<(&'static str, Chart)> {
    const CLASSES: [[&str; 2]; 2] = [["first", "third"], ["second", "fourth"]];
    let open = reports.iter().flat_map(|report| &report.outcomes).any(|outcome| outcome.load.is_open());
    let x = if open { "requests offered a second" } else { "clients" };
    let chart = |y: &str, logarithmic, series| Chart { x: x.into(), y: y.into(), logarithmic, series };
    let mut throughput: Vec<Series> = offered(reports).into_iter().collect();
    let mut latency = Vec::new();
    for (report, classes) in reports.iter().zip(CLASSES.into_iter().cycle()) {
        let name = report.server.split("://").next().unwrap_or_default().split('+').next().unwrap_or_default();
        let name = match (reports.len(), name) {
            (1, _) => String::new(),
            (_, "http") => "surprisal, ".into(),
            (_, api) => format!("{api}, "),
        };
        let curve = |label: &str, class, dashed, read: &dyn Fn(&Outcome) -> Option<f64>| Series {
            label: format!("{name}{label}"),
            class,
            dashed,
            points: points(report, read),
        };
        throughput.push(curve("answered", classes[0], false, &|outcome| Some(outcome.scored_tokens_per_second)));
        for (class, label, colour) in [(Class::Bulk, "", classes[0]), (Class::Interactive, "waited for, ", classes[1])]
        {
            let read = move |quantile: fn(&crate::Latency) -> f64| {
                move |outcome: &Outcome| outcome.latency.get(&class).map(quantile)
            };
            let curves = [
                curve(&format!("{label}p50"), colour, false, &read(|latency| latency.p50)),
                curve(&format!("{label}p99"), colour, true, &read(|latency| latency.p99)),
            ];
            latency.extend(curves.into_iter().filter(|curve| !curve.points.is_empty()));
        }
    }
    vec![
        ("Throughput against load", chart("tokens scored a second", false, throughput)),
        ("Latency against load", chart("ms from the time a request was due, logarithmic", true, latency)),
    ]
}

/// What would be answered if the server took every load that was offered; none for closed loops.
fn offered(reports: &[Report]) -> Option<Series> {
    let outcomes = || reports.iter().flat_map(|report| &report.outcomes);
    let (tokens, requests) =
        outcomes().fold((0, 0), |(tokens, requests), one| (tokens + one.scored_tokens, requests + one.requests));
    let mut rates: Vec<f64> = outcomes().filter_map(|outcome| outcome.load.rate()).collect();
    rates.sort_unstable_by(f64::total_cmp);
    rates.dedup();
    if rates.is_empty() || requests == 0 {
        return None;
    }
    let points = rates.into_iter().map(|rate| (rate, rate * tokens as f64 / requests as f64)).collect();
    Some(Series { label: "offered".into(), class: "offered", dashed: true, points })
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
