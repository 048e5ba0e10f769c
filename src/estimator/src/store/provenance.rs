//! The provenance of saved answers.

use serde::Serialize;

/// The provenance of answers. Every answer file contains it, so that a single file can be traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Provenance {
    /// Hash of the model's fingerprint, the documents and the queries. Its first 16 digits are in the name of the
    /// answers' folder.
    pub(crate) key: String,
    /// The version of this program.
    pub(crate) version: &'static str,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    /// The experiment's digest, from [`Experiment::digest`](crate::spec::Experiment::digest).
    pub(crate) config: String,
    pub(crate) seed: u64,
}
