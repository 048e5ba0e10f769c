//! The progress of long operations, as a bar on a terminal and as log lines elsewhere.
//!
//! Start with `weights.rs`, the shortest file, which shows the progress of reading a checkpoint. `tokens.rs` does the
//! same for experiments, and `load.rs` for load tests.

pub(crate) mod load;
pub(crate) mod tokens;
pub(crate) mod weights;

/// The log target of progress messages; [`LOG_FILTER`] enables it.
const LOG_TARGET: &str = "surprisal::progress";

/// The log filter for warnings and progress, used unless `SURPRISAL_LOG` is set.
pub(crate) const LOG_FILTER: &str = "warn,surprisal::progress=info";
