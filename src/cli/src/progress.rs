//! Progress on a terminal; silence elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use surprisal_estimator::Progress;

/// A bar of tokens, hidden unless stderr is a terminal.
pub(crate) struct TokenBar(ProgressBar);

impl TokenBar {
    pub(crate) fn new(message: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_message(message);
        let template = "{msg} {wide_bar} {human_pos}/{human_len} tokens, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(crate) fn update(&self, progress: Progress) {
        self.0.set_length(progress.total_tokens);
        self.0.set_position(progress.tokens);
    }
}

impl Drop for TokenBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
