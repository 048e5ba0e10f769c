//! The progress of an experiment.

use std::fmt;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use surprisal_estimator::Progress;

use super::LOG_TARGET;

/// The progress of an experiment, in tokens.
pub(crate) struct TokenBar {
    bar: ProgressBar,
    /// Progress that was last logged, or already saved at the start, in tenths of all tokens; `None` before the first
    /// update.
    logged_tenths: Option<u64>,
}

impl TokenBar {
    pub(crate) fn new(message: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_message(message);
        let template = "{msg} {wide_bar} {human_pos}/{human_len} tokens, {rate}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", write_rate));
        }
        Self { bar, logged_tenths: None }
    }

    pub(crate) fn update(&mut self, progress: Progress) {
        self.bar.set_length(progress.total_tokens);
        self.bar.set_position(progress.tokens);
        let tenths = progress.tokens * 10 / progress.total_tokens.max(1);
        match self.logged_tenths.replace(tenths) {
            None => self.announce(progress),
            Some(before) if self.bar.is_hidden() && tenths > before => {
                tracing::info!(target: LOG_TARGET, tokens = progress.tokens, of = progress.total_tokens, "{}", self.bar.message());
            }
            Some(_) => {}
        }
    }

    /// Reports the remaining work when a run resumes or has nothing to do.
    fn announce(&self, progress: Progress) {
        // Saved answers say nothing about the speed of new ones.
        self.bar.reset_eta();
        match resume_message(progress) {
            Some(message) if self.bar.is_hidden() => tracing::info!(target: LOG_TARGET, "{message}"),
            Some(message) => self.bar.println(message),
            None => {}
        }
    }
}

/// Returns the message for a run that resumes or has nothing to do; `None` for a run from the start.
fn resume_message(Progress { queries, total_queries, .. }: Progress) -> Option<String> {
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
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_whole_numbers() {
        assert_eq!(format_rate(9_090.275_9), "9,090/s");
    }

    #[test]
    fn a_resumed_run_reports_its_saved_answers() {
        let progress_line = |queries, total_queries| {
            resume_message(Progress { queries, total_queries, ..Progress::default() }).unwrap_or_default()
        };
        assert_eq!(progress_line(0, 5000), "");
        assert_eq!(progress_line(1200, 5000), "saved answers: 1,200 of 5,000 queries; requesting the rest");
        assert_eq!(progress_line(5000, 5000), "saved answers: all of 5,000 queries; nothing left to request");
        assert!(progress_line(0, 0).contains("this shard has no queries"));
    }
}
