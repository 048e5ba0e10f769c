//! Errors of reading, writing and downloading checkpoints.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A failure to read, write or download a checkpoint or its tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder that could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file that is missing or malformed.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The defect.
        reason: String,
    },
    /// A weight file whose SHA-256 differs from the published one.
    #[error("{path}: checksum mismatch: expected SHA-256 {expected} (from {known_by}), got {found}; download it again")]
    ChecksumMismatch {
        /// The file.
        path: PathBuf,
        /// The file's checksum.
        found: String,
        /// The published checksum.
        expected: String,
        /// The source of the published checksum: `SHA256SUMS`, or a blob of the hub's cache.
        known_by: PathBuf,
    },
    /// A field of config.json that is missing, malformed or not supported.
    #[error("config.json: {field} is {found}; {expected}")]
    Config {
        /// The field.
        field: String,
        /// Its value, or "missing".
        found: String,
        /// The supported values.
        expected: String,
    },
    /// A field of tokenizer_config.json that is not supported.
    #[error("tokenizer_config.json: {field} is {found}; {expected}")]
    TokenizerConfig {
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// The supported values.
        expected: String,
    },
    /// A tensor that the checkpoint lacks.
    #[error("tensor {name} is missing from the checkpoint")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A checkpoint whose tensors have other names.
    #[error(
        "tensor {expected} is missing from the checkpoint, which has {found} instead; load the checkpoint with \
         transformers' AutoModelForCausalLM and save it with save_pretrained to get the expected names"
    )]
    TensorPrefix {
        /// The expected name.
        expected: String,
        /// The name in the checkpoint.
        found: String,
    },
    /// A tensor that is not part of the model in config.json.
    #[error("tensor {name} is in the checkpoint, but not part of the model that config.json describes")]
    ExtraTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor whose shape or type differs from what config.json implies, or that holds a value that is not finite.
    #[error("tensor {name}: expected {expected}, got {found}")]
    Tensor {
        /// The tensor.
        name: String,
        /// The expected shape, type or values.
        expected: String,
        /// The shape, type or value in the file.
        found: String,
    },
    /// A text or token ids that the tokenizer rejected.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A model that was not found.
    #[error("model {name}: {reason}")]
    NotFound {
        /// The requested model.
        name: String,
        /// The reason, and what to do.
        reason: String,
    },
    /// An oracle whose parameters are invalid, or that cannot be written.
    #[error("oracle: {0}")]
    Oracle(String),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// Returns the error for a tensor that is not as expected.
    pub(crate) fn tensor(name: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Tensor { name: name.to_owned(), expected: expected.into(), found: found.into() }
    }

    /// Returns the error for a tensor that holds a value that is not finite. `index` is the value's index in the
    /// tensor.
    pub(crate) fn not_finite(name: &str, value: impl Display, index: usize) -> Self {
        Self::tensor(name, "finite values", format!("{value} at index {index}"))
    }

    pub(crate) fn malformed(path: &Path, reason: impl ToString) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Returns whether a file or folder exists. Unlike `Path::exists`, fails if the lookup fails: an overlooked file would
/// change results.
pub(crate) fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(Error::io(path))
}
