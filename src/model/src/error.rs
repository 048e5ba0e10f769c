//! Errors of reading, writing and downloading checkpoints.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A checkpoint, tokenizer or download that did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The defect.
        reason: String,
    },
    /// A weight file whose SHA-256 is not the published one.
    #[error("{path}: it is damaged: its SHA-256 is {found}, but {expected} by {known_by}; download it again")]
    ChecksumMismatch {
        /// The file.
        path: PathBuf,
        /// The file's checksum.
        found: String,
        /// The published checksum.
        expected: String,
        /// The source of the published checksum: `SHA256SUMS`, or the hub's blob.
        known_by: PathBuf,
    },
    /// config.json has a field that is missing, of the wrong type, or not supported.
    #[error("config.json: {field} is {found}; {expected}")]
    Config {
        /// The field.
        field: String,
        /// Its value, or "missing".
        found: String,
        /// The values that are supported.
        expected: String,
    },
    /// A tensor is missing.
    #[error("tensor {name} is missing from the checkpoint")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor that config.json has no use for.
    #[error("tensor {name} is in the checkpoint, but a model as config.json describes it has no such tensor")]
    ExtraTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape or type than the configuration says, or values that are not numbers.
    #[error("tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// The tensor.
        name: String,
        /// The shape or type that the configuration implies.
        expected: String,
        /// The file's shape, type or value.
        found: String,
    },
    /// The tokenizer could not be read, or rejected a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// No model of that name.
    #[error("model {name}: {reason}")]
    NotFound {
        /// The requested model.
        name: String,
        /// The places that were searched, and what to do.
        reason: String,
    },
    /// An oracle that cannot be written down.
    #[error("oracle: {0}")]
    Oracle(String),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// A tensor that is not as expected.
    pub(crate) fn tensor(name: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Tensor { name: name.to_owned(), expected: expected.into(), found: found.into() }
    }

    /// A tensor's value that is not finite, and its index in the tensor.
    pub(crate) fn not_finite(name: &str, value: impl Display, index: usize) -> Self {
        Self::tensor(name, "finite values", format!("{value} at index {index}"))
    }

    pub(crate) fn malformed(path: &Path, reason: impl ToString) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.to_string() }
    }
}
