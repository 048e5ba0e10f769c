//! Progress: a bar on a terminal, log lines elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use surprisal_estimator::Progress;
use surprisal_load::Outcome;
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
    /// Tenths that were logged.
    logged: u64,
}

impl TokenBar {
    pub(crate) fn new(message: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_message(message);
        let template = "{msg} {wide_bar} {human_pos}/{human_len} tokens, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, logged: 0 }
    }

    pub(crate) fn update(&mut self, progress: Progress) {
        self.bar.set_length(progress.total_tokens);
        self.bar.set_position(progress.tokens);
        let tenths = progress.tokens * 10 / progress.total_tokens.max(1);
        if self.bar.is_hidden() && tenths > std::mem::replace(&mut self.logged, tenths) {
            tracing::info!(tokens = progress.tokens, of = progress.total_tokens, "{}", self.bar.message());
        }
    }
}

impl Drop for TokenBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How a load is going.
pub(crate) struct LoadBar {
    bar: ProgressBar,
    load: String,
}

impl LoadBar {
    pub(crate) fn new(load: &str, duration: Duration) -> Self {
        let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(load.to_owned());
        Self { bar, load: load.to_owned() }
    }

    pub(crate) fn update(&self, progress: &surprisal_load::Progress) {
        self.bar.set_position(u64::try_from(progress.elapsed.as_millis()).unwrap_or(u64::MAX));
        let mut message = match progress.median {
            Some(median) if !progress.warming_up => format!(
                "{:.0} requests/s, {:.0} tokens/s, median {:.1} ms",
                progress.requests_per_second,
                progress.scored_tokens_per_second,
                median.as_secs_f64() * 1e3
            ),
            _ => "warming up".to_owned(),
        };
        for (count, name) in [(progress.refused, "refused"), (progress.failed, "failed")] {
            if count > 0 {
                message += &format!(", {count} {name}");
            }
        }
        self.bar.set_message(message);
    }

    pub(crate) fn done(&self, outcome: &Outcome) {
        if self.bar.is_hidden() {
            let (rate, failed) = (outcome.scored_tokens_per_second as u64, outcome.failed());
            tracing::info!(tokens_per_second = rate, failed, "{}", self.load);
        }
    }
}

impl Drop for LoadBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
