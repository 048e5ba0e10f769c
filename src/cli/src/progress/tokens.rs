//! The progress of an experiment, and its estimates so far.

use std::fmt;
use std::sync::Arc;

use console::Term;
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use surprisal_estimator::{EstimatesSoFar, PointSoFar, Progress, Series, SeriesSoFar};

use super::LOG_TARGET;

/// The least width of a terminal whose bar has the counts beside it, in columns. On others, they are below it.
const WIDE: usize = 80;

/// The progress of an experiment, in tokens, above its estimates so far.
pub(crate) struct TokenBar {
    bar: ProgressBar,
    /// The operation, as in `scoring`.
    name: &'static str,
    /// Progress that was last logged, or already saved at the start, in tenths of all tokens; `None` before the first
    /// update.
    logged_tenths: Option<u64>,
    /// The estimates that were shown or logged last, and the width of the terminal at that time.
    shown: Option<(Arc<EstimatesSoFar>, usize)>,
}

impl TokenBar {
    pub(crate) fn new(name: &'static str) -> Self {
        let bar = Self { bar: ProgressBar::new(0), name, logged_tenths: None, shown: None };
        bar.set_style(width());
        bar
    }

    /// Sets the template for a terminal of this width: the bar, and a message below it if there are estimates.
    fn set_style(&self, width: usize) {
        let name = self.name;
        let counts = match width < WIDE {
            true => "\n{human_pos}/{human_len} tokens\n{rate}, {eta} left",
            false => " {human_pos}/{human_len} tokens, {rate}, {eta} left",
        };
        let message = if self.shown.is_some() { "\n{msg}" } else { "" };
        if let Ok(style) = ProgressStyle::with_template(&format!("{name} {{wide_bar}}{counts}{message}")) {
            self.bar.set_style(style.with_key("rate", write_rate));
        }
    }

    pub(crate) fn update(&mut self, progress: Progress) {
        self.bar.set_length(progress.total_tokens);
        self.bar.set_position(progress.tokens);
        let (tokens, of) = (progress.tokens, progress.total_tokens);
        let tenths = tokens * 10 / of.max(1);
        let is_hidden = self.bar.is_hidden();
        let is_due = match self.logged_tenths.replace(tenths) {
            None => {
                self.announce(&progress);
                true
            }
            Some(before) if is_hidden && tenths > before => {
                tracing::info!(target: LOG_TARGET, tokens, of, "{}", self.name);
                true
            }
            Some(_) => !is_hidden,
        };
        // The report shows the estimates of a run that has nothing to do.
        if let Some(estimates) = progress.estimates.filter(|_| is_due && (tokens < of || self.shown.is_some())) {
            self.show(estimates, is_hidden);
        }
    }

    /// Shows the estimates below the bar, or logs them, unless they are those that were shown last.
    fn show(&mut self, estimates: Arc<EstimatesSoFar>, is_hidden: bool) {
        let width = width();
        let is_new = self.shown.as_ref().is_none_or(|(shown, before)| *shown != estimates || *before != width);
        if !is_new {
            return;
        }
        if is_hidden {
            log(&estimates);
        } else {
            let lines: Vec<String> = estimates.lines().iter().flat_map(|line| wrapped(line, width)).collect();
            self.bar.set_message(lines.join("\n"));
        }
        let style = self.shown.replace((estimates, width)).map(|(_, width)| width);
        if style != Some(width) {
            self.set_style(width);
        }
    }

    /// Reports the remaining work when a run resumes or has nothing to do.
    fn announce(&self, progress: &Progress) {
        // Saved answers say nothing about the speed of new ones.
        self.bar.reset_eta();
        match resume_message(progress) {
            Some(message) if self.bar.is_hidden() => tracing::info!(target: LOG_TARGET, "{message}"),
            Some(message) => self.bar.println(message),
            None => {}
        }
    }
}

/// Returns the width of the terminal, in columns.
fn width() -> usize {
    usize::from(Term::stderr().size().1)
}

/// Logs the estimates, one line for each ratio.
fn log(estimates: &EstimatesSoFar) {
    for PointSoFar { ratio, length, .. } in estimates.longest() {
        let text = |series| {
            let found = estimates.series.iter().find(|found| found.series == series)?;
            found.text(ratio, length).map(tracing::field::display)
        };
        let [direct, corrected, vclub] = [Series::Direct, Series::Corrected, Series::Vclub].map(text);
        let [documents, texts, vclub_documents, vclub_texts] = samples(estimates);
        let (of, unit) = (estimates.documents, estimates.unit.name());
        tracing::info!(
            target: LOG_TARGET,
            ratio, length, direct, corrected, vclub, unit, documents, of, texts, vclub_documents, vclub_texts,
            "estimates so far"
        );
    }
}

/// Returns the number of documents and texts of the first series, and of vCLUB if it has others.
fn samples(estimates: &EstimatesSoFar) -> [Option<usize>; 4] {
    let size = |found: &SeriesSoFar| (found.documents, found.texts);
    let first = estimates.series.first().map(size);
    let vclub = estimates.series.iter().find(|found| found.series == Series::Vclub).map(size);
    let (documents, texts) = first.unzip();
    let (vclub_documents, vclub_texts) = vclub.filter(|_| vclub != first).unzip();
    [documents, texts, vclub_documents, vclub_texts]
}

/// Breaks a line so that it fits a terminal of this width: between two estimates or, if there is none or if it does not
/// fit, between two words. A word that does not fit ends with `…`.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    // The last column stays free, because some terminals break a line that fills it.
    let room = width.saturating_sub(1);
    let length = |text: &str| text.trim_end().chars().count();
    let separator = if line.contains("], ") { "], " } else { " " };
    let indent = |index| if index == 0 { 0 } else { INDENT.len() };
    let mut parts: Vec<&str> = line.split_inclusive(separator).collect();
    if parts.iter().enumerate().any(|(index, part)| indent(index) + length(part) > room) {
        parts = line.split_inclusive(' ').collect();
    }
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(last) if length(&format!("{last}{part}")) <= room => last.push_str(part),
            Some(_) => lines.push(format!("{INDENT}{part}")),
            None => lines.push(part.to_owned()),
        }
    }
    lines.iter().map(|line| shortened(line.trim_end(), room)).collect()
}

/// Returns a text of at most this many characters, with `…` at the end if some are omitted.
fn shortened(text: &str, room: usize) -> String {
    match text.chars().count() <= room {
        true => text.to_owned(),
        false => text.chars().take(room.saturating_sub(1)).chain("…".chars().take(room)).collect(),
    }
}

/// Returns the message for a run that resumes or has nothing to do; `None` for a run from the start.
fn resume_message(progress: &Progress) -> Option<String> {
    let &Progress { queries, total_queries, .. } = progress;
    let (kept, all) = (HumanCount(queries), HumanCount(total_queries));
    match queries {
        _ if total_queries == 0 => {
            Some("this shard has no queries: the experiment is too small for this many shards".to_owned())
        }
        0 => None,
        _ if queries < total_queries => Some(format!("saved answers: {kept} of {all} queries; requesting the rest")),
        _ => Some(format!("saved answers: all of {all} queries; nothing left to request")),
    }
}

fn write_rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // Writing to the bar's line cannot fail.
    let _ = out.write_str(&format_rate(state.per_sec()));
}

/// Formats a rate, as in `9,090/s`.
fn format_rate(per_second: f64) -> String {
    format!("{}/s", HumanCount(per_second as u64))
}

impl Drop for TokenBar {
    /// Clears the bar at the end of a run. If the run fails, the bar and the last estimates stay.
    fn drop(&mut self) {
        if Some(self.bar.position()) == self.bar.length() {
            self.bar.finish_and_clear();
        } else {
            self.bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use surprisal_estimator::Unit;

    use super::*;

    #[test]
    fn rates_are_whole_numbers() {
        assert_eq!(format_rate(9_090.275_9), "9,090/s");
    }

    #[test]
    fn lines_fit_the_terminal_and_keep_estimates_whole() {
        let line = "L = 1024: direct 10.6 [9.7, 11.5], corrected 9.9 [9.0, 10.8], vCLUB 31 [22, 40]";
        assert_eq!(wrapped(line, 80), [line]);
        let halves = ["L = 1024: direct 10.6 [9.7, 11.5],", "  corrected 9.9 [9.0, 10.8],", "  vCLUB 31 [22, 40]"];
        assert_eq!(wrapped(line, 40), halves);
        let sample = "nats, from 24 of 160 documents (4 texts: indicative)";
        assert_eq!(wrapped(sample, 40), ["nats, from 24 of 160 documents (4", "  texts: indicative)"]);
        // A narrow terminal has less than an estimate on a line, but no part of a number.
        assert_eq!(wrapped(line, 20)[..3], ["L = 1024: direct", "  10.6 [9.7, 11.5],", "  corrected 9.9"]);
        assert_eq!(wrapped(line, 8)[3..5], ["  10.6", "  [9.7,"]);
        assert_eq!(wrapped(sample, 10)[3], "  docume…");
        // The longest part with an estimate, and the longest word with its indent, have this many characters.
        let (estimate, word) = (34, 13);
        for width in 1..100 {
            for line in [line, sample] {
                let lines = wrapped(line, width);
                assert!(lines.iter().all(|line| line.chars().count() < width), "{width}: {lines:?}");
                let joined = lines.iter().map(|line| line.trim_start()).collect::<Vec<_>>().join(" ");
                assert!(width <= word || joined == line, "{width}: {joined}");
                let is_whole = |line: &String| line.matches('[').count() == line.matches(']').count();
                assert!(width <= estimate || lines.iter().all(is_whole), "{width}: {lines:?}");
            }
        }
    }

    #[test]
    fn the_log_has_the_sample_of_vclub_if_it_differs() {
        let of = |series, documents, texts| SeriesSoFar { series, documents, texts, points: Vec::new() };
        let sizes = |vclub| {
            let series = vec![of(Series::Direct, 24, 6), of(Series::Corrected, 24, 6), vclub];
            samples(&EstimatesSoFar { unit: Unit::Nats, documents: 60, series })
        };
        assert_eq!(sizes(of(Series::Vclub, 24, 6)), [Some(24), Some(6), None, None]);
        assert_eq!(sizes(of(Series::Vclub, 10, 4)), [Some(24), Some(6), Some(10), Some(4)]);
    }

    #[test]
    fn a_resumed_run_reports_its_saved_answers() {
        let progress_line = |queries, total_queries| {
            resume_message(&Progress { queries, total_queries, ..Progress::default() }).unwrap_or_default()
        };
        assert_eq!(progress_line(0, 5000), "");
        assert_eq!(progress_line(1200, 5000), "saved answers: 1,200 of 5,000 queries; requesting the rest");
        assert_eq!(progress_line(5000, 5000), "saved answers: all of 5,000 queries; nothing left to request");
        assert!(progress_line(0, 0).contains("this shard has no queries"));
    }
}
