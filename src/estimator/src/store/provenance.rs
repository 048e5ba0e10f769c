//! Where kept answers come from.

use serde::Serialize;

/// Where answers are from. A shard says it too, so that one alone can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Provenance {
    /// What was asked of whom; the answers' folder has its beginning in its name.
    pub(crate) key: String,
    /// Of this program.
    pub(crate) version: &'static str,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    /// [`Experiment::digest`](crate::spec::Experiment::digest).
    pub(crate) config: String,
    pub(crate) seed: u64,
}
