//! The provenance of saved answers.

use serde::Serialize;

/// Where answers come from. Every file of answers holds it, so that a single file can be traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Provenance {
    /// A hash of model, documents and queries; the name of the answers' folder holds its beginning.
    pub(crate) key: String,
    /// The version of this program.
    pub(crate) version: &'static str,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    /// [`Experiment::digest`](crate::spec::Experiment::digest).
    pub(crate) config: String,
    pub(crate) seed: u64,
}
