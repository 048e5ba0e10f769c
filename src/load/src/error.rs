//! The error type of measurements.

use std::path::PathBuf;

/// The reason why a measurement has no result. Failures of individual requests are not errors: the
/// [`Outcome`](crate::Outcome) counts them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option outside its bounds.
    #[error("{field} is {value}; it must be {limit}")]
    Invalid {
        /// The option.
        field: &'static str,
        /// The given value.
        value: String,
        /// The allowed values.
        limit: String,
    },
    /// A server that cannot be reached, or a broken connection.
    #[error("{url}: {reason}; is a server running there?")]
    Unreachable {
        /// The requested URL.
        url: String,
        /// The system's error message.
        reason: String,
    },
    /// An error status for a request that must succeed.
    #[error("{url} returned status {status}: {body}{}", hint(*status))]
    Status {
        /// The requested URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the response's body.
        body: String,
    },
    /// A response that violates the server's API.
    #[error("{url} returned an invalid response: {reason}")]
    Answer {
        /// The requested URL.
        url: String,
        /// Description of the problem.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason, with the line number if a line is invalid.
        reason: String,
    },
    /// Two results of different measurements, which cannot be compared.
    #[error("the results cannot be compared, because they differ in {field}: {first} and {second}")]
    Different {
        /// The field that differs.
        field: &'static str,
        /// Its value in the first result.
        first: String,
        /// Its value in the second result.
        second: String,
    },
}

impl Error {
    pub(crate) fn invalid(field: &'static str, value: impl ToString, limit: impl Into<String>) -> Self {
        Self::Invalid { field, value: value.to_string(), limit: limit.into() }
    }
}

/// Returns a hint for an HTTP status.
fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; set the API key with --api-key or SURPRISAL_API_KEY",
        404 => "; does this server use another API? set it with a prefix in --url",
        _ => "",
    }
}
