//! Progress of long work: a bar on a terminal, and log lines elsewhere.
//!
//! Start with `weights.rs`, the shortest: it shows the progress of reading a checkpoint. `tokens.rs` shows an experiment's, and
//! `load.rs` a load test's.

pub(crate) mod load;
pub(crate) mod tokens;
pub(crate) mod weights;

/// The target of progress in the log, which [`LOG_FILTER`] names.
const LOG_TARGET: &str = "surprisal::progress";

/// The log lines that are shown unless `SURPRISAL_LOG` says otherwise: warnings, and progress.
pub(crate) const LOG_FILTER: &str = "warn,surprisal::progress=info";
