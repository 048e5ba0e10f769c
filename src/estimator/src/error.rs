//! What can go wrong, said so that one can act on it.

use std::fmt::Display;
use std::path::PathBuf;

use surprisal_api::Problem;

/// Why an estimation did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument outside its limits.
    #[error("{field} is {value}; it must be {limit}")]
    Invalid {
        /// The argument.
        field: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        limit: String,
    },
    /// An experiment file that cannot be read as one.
    #[error("{}: {reason}", path.display())]
    Experiment {
        /// Which file.
        path: PathBuf,
        /// The line, the key and what is wrong with it.
        reason: String,
    },
    /// A text with too few tokens for the experiment.
    #[error(
        "the text has {tokens} tokens, but {windows} windows of {length} need {needed}: take a longer text{} or shorter splits",
        fewer(*most)
    )]
    TooShort {
        /// Tokens there are.
        tokens: usize,
        /// Windows asked for.
        windows: usize,
        /// Tokens in a window.
        length: usize,
        /// Tokens needed.
        needed: usize,
        /// The most windows of this length that the text holds.
        most: usize,
    },
    /// A document whose length is not the plan's window.
    #[error("document {document} has {length} tokens; the plan's window is {window}")]
    DocumentLength {
        /// Which one.
        document: usize,
        /// Its tokens.
        length: usize,
        /// The plan's window.
        window: usize,
    },
    /// A sequence that the model cannot score.
    #[error(
        "the experiment scores {needed} tokens at once (BOS included), but {model} takes at most {limit}: use shorter splits"
    )]
    TooLong {
        /// The longest sequence of the plan.
        needed: usize,
        /// The model's name.
        model: String,
        /// The model's limit.
        limit: usize,
    },
    /// A token id that the source does not know.
    #[error("token id {token} at position {position} is out of range; the vocabulary has {limit} ids")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Its place in the target.
        position: usize,
        /// The vocabulary's size.
        limit: usize,
    },
    /// A log-probability that cannot be averaged.
    #[error("{query} has log-probability {value} at target token {position}; it must be finite")]
    NotFinite {
        /// The query, in words.
        query: String,
        /// Place in the target.
        position: usize,
        /// What the source answered.
        value: f32,
    },
    /// The server rejected the request, and stated the reason.
    #[error("{url} refused: {problem}{}", location(problem))]
    Rejected {
        /// Where.
        url: String,
        /// The server's words.
        problem: Box<Problem>,
    },
    /// The server answered with an error status and no problem document.
    #[error("{url} answered {status}: {body}")]
    Status {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        body: String,
    },
    /// The server could not be reached, or the connection broke.
    #[error("{url}: {reason}")]
    Transport {
        /// Where.
        url: String,
        /// What happened, with its causes.
        reason: String,
    },
    /// The same failure again and again.
    #[error("gave up after {attempts} attempts in {seconds} s: {last}")]
    GaveUp {
        /// How often it was tried.
        attempts: u32,
        /// For how long.
        seconds: u64,
        /// The last failure.
        last: Box<Error>,
    },
    /// A response that does not fit the request.
    #[error("{url} answered something else than was asked: {reason}")]
    UnexpectedResponse {
        /// The server's address.
        url: String,
        /// What is wrong with the response.
        reason: String,
    },
    /// The server's model is another than at the start, so that the numbers do not belong together.
    #[error("the served model changed during the experiment: fingerprint {before} became {now}")]
    ModelChanged {
        /// The fingerprint at the start.
        before: String,
        /// The fingerprint now.
        now: String,
    },
    /// Servers that do not serve the same model, so that their numbers do not belong together.
    #[error("{one}, but {other}: all servers of an experiment must have one model")]
    ReplicasDiffer {
        /// The address and model of one server.
        one: String,
        /// The address and model of another.
        other: String,
    },
    /// Answers that cannot be put together.
    #[error("{}: {reason}", path.display())]
    Merge {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The temporary file of tokens that do not fit into memory could not be made, written or read.
    #[error("the temporary file of tokens that do not fit into memory (its folder is TMPDIR's): {0}")]
    Spill(#[source] std::io::Error),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// An argument outside its limits.
    pub(crate) fn invalid(field: &'static str, value: impl Display, limit: impl Into<String>) -> Self {
        Self::Invalid { field, value: value.to_string(), limit: limit.into() }
    }
}

/// What fewer windows would do: nothing, where not even one fits.
fn fewer(most: usize) -> String {
    if most == 0 { String::new() } else { format!(", at most {most} windows,") }
}

/// Where a problem lies, as far as the server told: field, value, limit.
fn location(problem: &Problem) -> String {
    let parts = [
        problem.field.as_ref().map(|field| format!("field {field}")),
        problem.value.as_ref().map(|value| format!("value {value}")),
        problem.limit.as_ref().map(|limit| format!("limit {limit}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}
