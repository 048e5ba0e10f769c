//! Progress: a bar on a terminal, log lines elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressState, ProgressStyle};
use surprisal_estimator::Progress;
use surprisal_load::{Latency, Outcome};
use surprisal_model::Reading;

/// Which log lines are shown unless `SURPRISAL_LOG` says otherwise: warnings, and how far long work is.
pub(crate) const LOG_LEVEL: &str = "warn,surprisal::progress=info";

/// A checkpoint with fewer bytes is read before one could look at a bar.
const LARGE: u64 = 128 << 20;

/// How far a large checkpoint is read: once for its checksums, once for its weights. It may be updated by several threads.
pub(crate) struct WeightsBar {
    bar: ProgressBar,
    size: u64,
    state: Mutex<State>,
}

/// Bytes that were read for the checksums and for the weights, and how many tenths of them were logged.
#[derive(Default)]
struct State {
    read: [u64; 2],
    logged: [u64; 2],
}

impl WeightsBar {
    /// For files of so many bytes together.
    pub(crate) fn new(size: u64) -> Self {
        let bar = if size < LARGE { ProgressBar::hidden() } else { ProgressBar::new(size) };
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}") {
            bar.set_style(style);
        }
        Self { bar, size, state: Mutex::default() }
    }

    /// So many more bytes were read.
    pub(crate) fn update(&self, reading: Reading, bytes: u64) {
        if self.size < LARGE {
            return;
        }
        let (stage, message) = match reading {
            Reading::Checks => (0, "checking weights"),
            Reading::Weights => (1, "loading weights"),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What every rank reads for itself counts several times.
        let read = (state.read[stage] + bytes).min(self.size);
        state.read[stage] = read;
        self.bar.set_message(message);
        self.bar.set_position(read);
        let tenths = read * 10 / self.size;
        if self.bar.is_hidden() && tenths > std::mem::replace(&mut state.logged[stage], tenths) {
            tracing::info!(read = %HumanBytes(read), of = %HumanBytes(self.size), "{message}");
        }
    }

    /// Leaves the terminal as it was.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// How far an experiment is, in tokens.
pub(crate) struct TokenBar {
    bar: ProgressBar,
    /// Tenths that were logged, or answered before; none before the first update.
    logged: Option<u64>,
}

impl TokenBar {
    pub(crate) fn new(message: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_message(message);
        let template = "{msg} {wide_bar} {human_pos}/{human_len} tokens, {rate}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", write_rate));
        }
        Self { bar, logged: None }
    }

    pub(crate) fn update(&mut self, progress: Progress) {
        self.bar.set_length(progress.total_tokens);
        self.bar.set_position(progress.tokens);
        let tenths = progress.tokens * 10 / progress.total_tokens.max(1);
        match self.logged.replace(tenths) {
            None => self.begin(progress),
            Some(before) if self.bar.is_hidden() && tenths > before => {
                tracing::info!(tokens = progress.tokens, of = progress.total_tokens, "{}", self.bar.message());
            }
            Some(_) => {}
        }
    }

    /// Says what there is to do, where that is not everything.
    fn begin(&self, progress: Progress) {
        // Answers that were kept do not say how fast others come.
        self.bar.reset_eta();
        match beginning(progress) {
            Some(told) if self.bar.is_hidden() => tracing::info!("{told}"),
            Some(told) => self.bar.println(told),
            None => {}
        }
    }
}

/// What is told of a run that does not begin at the beginning.
fn beginning(Progress { queries, total_queries, .. }: Progress) -> Option<String> {
    let (kept, all) = (HumanCount(queries), HumanCount(total_queries));
    match queries {
        _ if total_queries == 0 => {
            Some("this part has nothing to do: the experiment is too small for so many parts".to_owned())
        }
        0 => None,
        _ if queries < total_queries => Some(format!("kept answers: {kept} of {all} queries; asking for the rest")),
        _ => Some(format!("kept answers: all of {all} queries; nothing is left to ask")),
    }
}

fn write_rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // Writing to the bar's line cannot fail.
    let _ = out.write_str(&rate(state.per_sec()));
}

/// `9,090/s`.
fn rate(per_second: f64) -> String {
    format!("{}/s", HumanCount(per_second as u64))
}

impl Drop for TokenBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// When a measurement is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// After so long, the warm-up included.
    Time(Duration),
    /// After so many answers.
    Requests(u64),
}

/// How a load is going: a few lines that change a few times a second.
pub(crate) struct LoadBar {
    bar: ProgressBar,
    load: String,
    goal: Goal,
    recent: Mutex<Recent>,
}

/// Throughput of the last ticks.
#[derive(Debug, Default)]
struct Recent {
    elapsed: Duration,
    scored_tokens: u64,
    /// Log-probabilities answered a second, the oldest first.
    rates: VecDeque<f64>,
}

impl Recent {
    /// So many ticks are remembered: ten seconds.
    const TICKS: usize = 40;

    fn add(&mut self, progress: &surprisal_load::Progress) {
        let seconds = progress.elapsed.saturating_sub(self.elapsed).as_secs_f64();
        let more = progress.scored_tokens.saturating_sub(self.scored_tokens);
        (self.elapsed, self.scored_tokens) = (progress.elapsed, progress.scored_tokens);
        if progress.warming_up || seconds <= 0.0 {
            return;
        }
        self.rates.push_back(more as f64 / seconds);
        if self.rates.len() > Self::TICKS {
            self.rates.pop_front();
        }
    }

    /// As a row of bars, the highest of them full.
    fn drawn(&self) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let most = self.rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        self.rates.iter().map(|rate| BARS[((rate / most * 7.0).round() as usize).min(7)]).collect()
    }
}

impl LoadBar {
    pub(crate) fn new(load: &str, goal: Goal) -> Self {
        let length = match goal {
            Goal::Time(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            Goal::Requests(requests) => requests,
        };
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {elapsed}\n{msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(load.to_owned());
        Self { bar, load: load.to_owned(), goal, recent: Mutex::default() }
    }

    pub(crate) fn update(&self, progress: &surprisal_load::Progress) {
        self.bar.set_position(match self.goal {
            Goal::Time(_) => u64::try_from(progress.elapsed.as_millis()).unwrap_or(u64::MAX),
            Goal::Requests(_) => progress.requests,
        });
        // A tick is added whole, even if another thread panicked.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.add(progress);
        let (requests, tokens) = (progress.requests_per_second, progress.scored_tokens_per_second);
        let mut lines = match progress.latency {
            Some(Latency { p50, p90, p99, max, .. }) if !progress.warming_up => format!(
                "  answered   {requests:.1} requests/s, {tokens:.0} tokens scored/s  {}\n  \
                 latency    p50 {p50:.1} ms, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}",
                recent.drawn(),
            ),
            _ if progress.warming_up => "  warming up".to_owned(),
            _ => "  no answer yet".to_owned(),
        };
        if let Some(rate) = progress.hit_rate.filter(|_| !progress.warming_up) {
            lines += &format!("\n  cache      {:.1}% of the tokens", 100.0 * rate);
        }
        for (count, name) in [(progress.refused, "refused with 429"), (progress.failed, "failed")] {
            if count > 0 {
                lines += &format!("\n  {count} {name}");
            }
        }
        self.bar.set_message(lines);
    }

    /// Leaves a line behind: a person has many loads to watch.
    pub(crate) fn done(&self, outcome: &Outcome) {
        let (tokens, failed) = (outcome.scored_tokens_per_second, outcome.failed());
        if self.bar.is_hidden() {
            tracing::info!(tokens_per_second = tokens as u64, failed, "{}", self.load);
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

    #[test]
    fn rates_are_whole_numbers() {
        assert_eq!(rate(9_090.275_9), "9,090/s");
    }

    #[test]
    fn a_run_says_where_it_begins() {
        let told = |queries, total_queries| {
            beginning(Progress { queries, total_queries, ..Progress::default() }).unwrap_or_default()
        };
        assert_eq!(told(0, 5000), "");
        assert_eq!(told(1200, 5000), "kept answers: 1,200 of 5,000 queries; asking for the rest");
        assert_eq!(told(5000, 5000), "kept answers: all of 5,000 queries; nothing is left to ask");
        assert!(told(0, 0).contains("this part has nothing to do"));
    }

    /// Each bar is a tick's own throughput, not the mean since the beginning.
    #[test]
    fn the_last_ticks_are_drawn() {
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
        let mut recent = Recent::default();
        for (quarters, tokens, warming_up) in [(1, 0, true), (2, 0, false), (3, 350, false), (4, 1050, false)] {
            recent.add(&tick(quarters, tokens, warming_up));
        }
        assert_eq!(recent.drawn(), "▁▅█");
        (5..100).for_each(|quarters| recent.add(&tick(quarters, 1050, false)));
        assert_eq!(recent.drawn(), "▁".repeat(Recent::TICKS));
    }
}
