//! A report as a self-contained HTML page, and its load curves as one picture.

use std::path::Path;

use surprisal_chart::{escape, page, short};

use super::Report;
use super::charts::{charts, drawing};
use super::file::write_atomically;
use crate::error::Error;
use crate::outcome::{Latency, Outcome};
use crate::workload::LatencyClass;

/// Column headings of the table.
const HEADS: [&str; 10] =
    ["load", "requests/s", "tokens/s", "p50, ms", "p90", "p99", "p99.9", "max", "cached", "failed"];

impl Report {
    /// Returns the load curves and numbers of reports with the same loads, as one HTML page without scripts or external
    /// files.
    pub fn html(reports: &[Report]) -> String {
        let servers = reports.iter().map(|report| report.server.as_str()).collect::<Vec<_>>().join(" and ");
        let workload = reports.first().map(|report| &report.workload);
        let workload = workload.and_then(|workload| serde_json::to_string(workload).ok()).unwrap_or_default();
        let mut content = format!("<p class=\"lead\">Each request: <code>{}</code></p>\n", escape(&workload));
        for (heading, chart) in charts(reports) {
            let svg = chart.svg();
            content += &format!("<section>\n<h2>{heading}</h2>\n<div class=\"scroll\">\n{svg}</div>\n</section>\n");
        }
        content.extend(reports.iter().map(section));
        page(&format!("Load test of {servers}"), &content)
    }

    /// Writes the page, or only the curves if `path` ends in `.svg` or `.pdf`. The file is written atomically.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written.
    pub fn write_curves(reports: &[Report], path: &Path) -> Result<(), Error> {
        let bytes = match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("svg") => drawing(reports).svg().into_bytes(),
            Some("pdf") => drawing(reports).pdf(),
            _ => Self::html(reports).into_bytes(),
        };
        write_atomically(path, &bytes)
    }
}

/// Returns a section with a report's numbers (one row per load and round), failures, and parameters.
fn section(report: &Report) -> String {
    let heads: String = HEADS.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let rows: String = report.outcomes.iter().flat_map(rows).collect();
    let failures: String = report.outcomes.iter().flat_map(failures).collect();
    let fingerprint = report.fingerprint.as_ref().map_or(String::new(), |it| format!("Fingerprint {}. ", escape(it)));
    format!(
        "<section>\n<h2>{} at {}</h2>\n<div class=\"scroll\"><table class=\"names\">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n{failures}<p class=\"small\">{fingerprint}Token ids below {}, seed {}, {} s of warm-up, surprisal {}. \
         The column tokens/s counts scored tokens. Latencies count from the time a request was due; of the failed \
         requests, only those that the client gave up on have a latency.</p>\n</section>\n",
        escape(&report.model),
        escape(&report.server),
        report.vocabulary,
        report.seed,
        short(report.warm_up),
        escape(&report.version),
    )
}

/// Returns one row per class of latencies, or a row without latencies if there are none.
fn rows(outcome: &Outcome) -> Vec<String> {
    let times = |latency: &Latency| {
        [latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map(|time| format!("{time:.1}"))
    };
    let rows = outcome.latency.iter().map(|(&class, latency)| row(outcome, class, times(latency)));
    let mut rows: Vec<String> = rows.collect();
    if rows.is_empty() {
        rows.push(row(outcome, LatencyClass::Bulk, std::array::from_fn(|_| "–".to_owned())));
    }
    rows
}

fn row(outcome: &Outcome, class: LatencyClass, times: [String; 5]) -> String {
    let load = match class {
        LatencyClass::Interactive => format!("{}, interactive", outcome.load),
        LatencyClass::Bulk => outcome.load.to_string(),
    };
    let hits = outcome.hit_rate().map_or(String::new(), |rate| format!("{:.1}%", 100.0 * rate));
    let mut cells =
        vec![load, format!("{:.1}", outcome.requests_per_second), format!("{:.0}", outcome.scored_tokens_per_second)];
    cells.extend(times);
    cells.extend([hits, outcome.failed().to_string()]);
    let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
    format!("<tr>{cells}</tr>\n")
}

/// Returns one paragraph per kind of failure.
fn failures(outcome: &Outcome) -> Vec<String> {
    let mut paragraphs = Vec::new();
    for (kind, failures) in &outcome.failures {
        let text = format!("{}: {} x {kind}: {}", outcome.load, failures.count, failures.example);
        paragraphs.push(format!("<p class=\"small\">{}</p>\n", escape(&text)));
    }
    paragraphs
}
