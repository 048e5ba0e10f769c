//! Progress: a bar on a terminal, log lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use surprisal_estimator::Progress;

/// Which log lines are shown unless `SURPRISAL_LOG` says otherwise: warnings, and how far long work is.
pub(crate) const LOG_LEVEL: &str = "warn,surprisal::progress=info";

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
