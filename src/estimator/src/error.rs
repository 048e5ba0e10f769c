//! Errors of the estimation client.

use std::fmt::Display;
use std::path::PathBuf;

use surprisal_api::Problem;

/// A failure that ends an estimation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument with an invalid value.
    #[error("{field} is {value}; it must be {limit}")]
    Invalid {
        /// The argument.
        field: &'static str,
        /// The argument's value.
        value: String,
        /// The accepted values.
        limit: String,
    },
    /// An invalid experiment file.
    #[error("{}: {reason}", path.display())]
    Experiment {
        /// The file.
        path: PathBuf,
        /// The line, the key and the problem.
        reason: String,
    },
    /// A text with too few tokens for the experiment.
    #[error(
        "the text has {tokens} tokens, but {windows} windows of {length} tokens need {needed}; use a longer text{} or \
         shorter splits",
        fewer(*most)
    )]
    TooShort {
        /// Tokens in the text.
        tokens: usize,
        /// Windows requested.
        windows: usize,
        /// Tokens per window.
        length: usize,
        /// Tokens needed.
        needed: usize,
        /// The number of windows of this length that fit in the text.
        most: usize,
    },
    /// A document whose length differs from the plan's window.
    #[error("document {document} has {length} tokens; the plan's window has {window}")]
    DocumentLength {
        /// The document's index.
        document: usize,
        /// Tokens in the document.
        length: usize,
        /// Tokens in the plan's window.
        window: usize,
    },
    /// A plan with a sequence that is too long for the model.
    #[error(
        "the longest sequence has {needed} tokens with BOS, but {model} accepts at most {limit}; use shorter splits or \
         smaller ratios"
    )]
    TooLong {
        /// Tokens in the plan's longest sequence, BOS included.
        needed: usize,
        /// The model's name.
        model: String,
        /// The model's maximum sequence length, in tokens.
        limit: usize,
    },
    /// A token id that the source cannot score.
    #[error("token id {token} at position {position} is out of range; it must be less than {limit}")]
    TokenOutOfRange {
        /// The token id.
        token: u32,
        /// Its position in the context or the target.
        position: usize,
        /// The number of token ids that can be scored.
        limit: usize,
    },
    /// A log-probability that is not finite, so it cannot be averaged.
    #[error("{query} has log-probability {value} at target token {position}; it must be finite")]
    NotFinite {
        /// A description of the query.
        query: String,
        /// The position in the target.
        position: usize,
        /// The log-probability that the source returned.
        value: f32,
    },
    /// A request that the server rejected with a problem document.
    #[error("{url} rejected the request: {problem}{}", location(problem))]
    Rejected {
        /// The request's URL.
        url: String,
        /// The server's problem document.
        problem: Box<Problem>,
    },
    /// A response with an error status and no problem document.
    #[error("{url} returned {status}: {body}")]
    Status {
        /// The request's URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the response body.
        body: String,
    },
    /// A failure to reach the server, or a broken connection.
    #[error("{url}: {reason}")]
    Transport {
        /// The request's URL.
        url: String,
        /// The failure with its causes.
        reason: String,
    },
    /// A request that kept failing until the time limit for retries.
    #[error("gave up after {attempts} attempts in {seconds} s: {last}")]
    GaveUp {
        /// The number of attempts.
        attempts: u32,
        /// Seconds from the first attempt to the last failure.
        seconds: u64,
        /// The last failure.
        last: Box<Error>,
    },
    /// A response that does not match its request.
    #[error("{url} returned an unexpected response: {reason}")]
    UnexpectedResponse {
        /// The request's URL.
        url: String,
        /// The mismatch.
        reason: String,
    },
    /// A model that changed during the run, so its numbers cannot be combined.
    #[error("{url}: the served model changed during the run: fingerprint {before} became {now}; run the command again")]
    ModelChanged {
        /// The server's address.
        url: String,
        /// The fingerprint at the start.
        before: String,
        /// The fingerprint now.
        now: String,
    },
    /// Servers that do not serve the same model, so their numbers cannot be combined.
    #[error("{one}, but {other}: all servers of an experiment must serve the same model")]
    ReplicasDiffer {
        /// The address and model of one server.
        one: String,
        /// The address and model of another.
        other: String,
    },
    /// Saved answers that cannot be merged.
    #[error("{}: {reason}", path.display())]
    Merge {
        /// The folder or file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// Reports on different texts, which are not comparable.
    #[error(
        "the reports {first} ({first_corpus}) and {other} ({other_corpus}) measure different texts, so their estimates \
         are not comparable; estimate both on the same files with the same selection and seed, or pass \
         --any-corpus to show them side by side without differences"
    )]
    DifferentCorpora {
        /// The name of the first report.
        first: String,
        /// The description of its corpus.
        first_corpus: String,
        /// The name of the other report.
        other: String,
        /// The description of its corpus.
        other_corpus: String,
    },
    /// A failure to create, write or read the temporary file for tokens that do not fit in memory.
    #[error("cannot use the temporary file in $TMPDIR for tokens that do not fit in memory: {0}")]
    Spill(#[source] std::io::Error),
    /// A report of which some files could not be written. The others were.
    #[error("{}: cannot write {} ({first})", folder.display(), files.join(", "))]
    Unwritten {
        /// The folder of the report.
        folder: PathBuf,
        /// The names of the files that were not written.
        files: Vec<String>,
        /// The first failure.
        first: Box<Error>,
    },
    /// A failure to read or write a file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    /// Creates an [`Error::Invalid`].
    pub(crate) fn invalid(field: &'static str, value: impl Display, limit: impl Into<String>) -> Self {
        Self::Invalid { field, value: value.to_string(), limit: limit.into() }
    }
}

/// Returns the advice to use fewer windows; an empty string if the text is too short for even one.
fn fewer(most: usize) -> String {
    if most == 0 { String::new() } else { format!(", at most {most} windows,") }
}

/// Returns the field, value and limit of a problem in parentheses, omitting those that the server did not state.
fn location(problem: &Problem) -> String {
    let parts = [
        problem.field.as_ref().map(|field| format!("field {field}")),
        problem.value.as_ref().map(|value| format!("value {value}")),
        problem.limit.as_ref().map(|limit| format!("limit {limit}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}
