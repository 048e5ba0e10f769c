//! The progress of a load test.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use surprisal_load::{Latency, Outcome};

use super::LOG_TARGET;

/// The condition that ends a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MeasurementEnd {
    /// A time from the start, including the warm-up.
    Time(Duration),
    /// A number of responses.
    Requests(u64),
}

/// The progress of a load test, in a few lines that change a few times per second.
pub(crate) struct LoadBar {
    bar: ProgressBar,
    load: String,
    end: MeasurementEnd,
    recent: Mutex<RecentRates>,
}

/// The throughput in recent ticks.
#[derive(Debug, Default)]
struct RecentRates {
    elapsed: Duration,
    scored_tokens: u64,
    /// Tokens scored per second in each tick, oldest first.
    rates: VecDeque<f64>,
}

impl RecentRates {
    /// Number of ticks to keep, which span ten seconds.
    const TICKS: usize = 40;

    /// Adds the throughput since the last tick.
    fn push(&mut self, progress: &surprisal_load::Progress) {
        let seconds = progress.elapsed.saturating_sub(self.elapsed).as_secs_f64();
        let tokens = progress.scored_tokens.saturating_sub(self.scored_tokens);
        (self.elapsed, self.scored_tokens) = (progress.elapsed, progress.scored_tokens);
        if progress.warming_up || seconds <= 0.0 {
            return;
        }
        self.rates.push_back(tokens as f64 / seconds);
        if self.rates.len() > Self::TICKS {
            self.rates.pop_front();
        }
    }

    /// Draws the rates as a row of bars, scaled to the highest.
    fn sparkline(&self) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let most = self.rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        self.rates.iter().map(|rate| BARS[((rate / most * 7.0).round() as usize).min(7)]).collect()
    }
}

impl LoadBar {
    pub(crate) fn new(load: &str, end: MeasurementEnd) -> Self {
        let length = match end {
            MeasurementEnd::Time(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            MeasurementEnd::Requests(requests) => requests,
        };
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {elapsed}\n{msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(load.to_owned());
        Self { bar, load: load.to_owned(), end, recent: Mutex::default() }
    }

    pub(crate) fn update(&self, progress: &surprisal_load::Progress) {
        self.bar.set_position(match self.end {
            MeasurementEnd::Time(_) => u64::try_from(progress.elapsed.as_millis()).unwrap_or(u64::MAX),
            MeasurementEnd::Requests(_) => progress.requests,
        });
        // Every update leaves the rates consistent, so a panic in another thread does no harm.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push(progress);
        let (requests, tokens) = (progress.requests_per_second, progress.scored_tokens_per_second);
        let mut lines = match progress.latency {
            Some(Latency { p50, p90, p99, max, .. }) if !progress.warming_up => format!(
                "  answered   {requests:.1} requests/s, {tokens:.0} tokens scored/s  {}\n  \
                 latency    p50 {p50:.1} ms, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}",
                recent.sparkline(),
            ),
            _ if progress.warming_up => "  warming up".to_owned(),
            _ => "  no response yet".to_owned(),
        };
        if let Some(rate) = progress.hit_rate.filter(|_| !progress.warming_up) {
            lines += &format!("\n  cache      {:.1}% of the tokens", 100.0 * rate);
        }
        for (count, name) in [(progress.refused, "rejected with 429"), (progress.failed, "failed")] {
            if count > 0 {
                lines += &format!("\n  {count} {name}");
            }
        }
        self.bar.set_message(lines);
    }

    /// Prints a line with the outcome, which stays on the terminal when the next load starts.
    pub(crate) fn finish(&self, outcome: &Outcome) {
        let (tokens, failed) = (outcome.scored_tokens_per_second, outcome.failed());
        if self.bar.is_hidden() {
            tracing::info!(target: LOG_TARGET, tokens_per_second = tokens as u64, failed, "{}", self.load);
            return;
        }
        let latency = outcome.latency.values().max_by_key(|latency| latency.count);
        let latency = latency.map_or(String::new(), |l| format!(", p50 {:.1} ms, p99 {:.1}", l.p50, l.p99));
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        self.bar.println(format!("{}: {tokens:.0} tokens scored/s{latency}{failed}", self.load));
    }
}

impl Drop for LoadBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each bar shows the throughput of one tick, not the mean since the start.
    #[test]
    fn sparkline_shows_recent_ticks() {
        let tick = |quarters: u32, scored_tokens, warming_up| surprisal_load::Progress {
            elapsed: Duration::from_millis(250) * quarters,
            warming_up,
            requests: 0,
            scored_tokens,
            requests_per_second: 0.0,
            scored_tokens_per_second: 0.0,
            latency: None,
            hit_rate: None,
            refused: 0,
            failed: 0,
        };
        let mut recent = RecentRates::default();
        for (quarters, tokens, warming_up) in [(1, 0, true), (2, 0, false), (3, 350, false), (4, 1050, false)] {
            recent.push(&tick(quarters, tokens, warming_up));
        }
        assert_eq!(recent.sparkline(), "▁▅█");
        (5..100).for_each(|quarters| recent.push(&tick(quarters, 1050, false)));
        assert_eq!(recent.sparkline(), "▁".repeat(RecentRates::TICKS));
    }
}
