//! What can keep a measurement from being made.

use std::path::PathBuf;

/// Why there is no result. Failures of single requests are no errors: they are counted in the [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option out of its bounds.
    #[error("{field} is {value}; it must be {limit}")]
    Invalid {
        /// The option.
        field: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        limit: String,
    },
    /// No server, or it went away.
    #[error("{url}: {reason}; is a server running there?")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// The server refused what a measurement begins with.
    #[error("{url} answered {status}: {body}{}", hint(*status))]
    Status {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// An answer that is not what the API promises.
    #[error("{url}: the answer is not understood: {reason}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why, with the line where that helps.
        reason: String,
    },
    /// Two results that say nothing about each other.
    #[error("the results cannot be compared: {field} is {first} in one and {second} in the other")]
    Different {
        /// What differs.
        field: &'static str,
        /// In the first result.
        first: String,
        /// In the second.
        second: String,
    },
}

impl Error {
    pub(crate) fn invalid(field: &'static str, value: impl ToString, limit: impl Into<String>) -> Self {
        Self::Invalid { field, value: value.to_string(), limit: limit.into() }
    }
}

/// What to do about a status.
fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; the key is given with --api-key or SURPRISAL_API_KEY",
        404 => "; is it a server of another API? see --url",
        _ => "",
    }
}
