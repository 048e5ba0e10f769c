//! The error type of commands.

use std::path::{Path, PathBuf};

/// The reason why a command failed. Messages say what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Options that are invalid, or contradict each other or a file.
    #[error("{0}")]
    Usage(String),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {reason}")]
    Config { path: PathBuf, reason: String },
    #[error("cannot listen on {address}: {source}; {}", bind_hint(source))]
    Bind { address: String, source: std::io::Error },
    #[error(transparent)]
    Model(#[from] surprisal_model::Error),
    #[error(transparent)]
    Load(#[from] surprisal_engine::LoadError),
    #[cfg(feature = "mistralrs")]
    #[error(transparent)]
    Mistralrs(#[from] surprisal_mistral::LoadError),
    #[cfg(not(feature = "mistralrs"))]
    #[error(
        "GGUF files, --isq and --engine mistralrs need mistralrs, but this program was built without it; rebuild with \
         `cargo build --release --features mistralrs`"
    )]
    NoMistralrs,
    #[cfg(not(feature = "cuda"))]
    #[error("the device is a GPU, but this program was built without the feature cuda; set device to cpu, or rebuild")]
    NoCuda,
    #[error(transparent)]
    Tls(#[from] surprisal_server::TlsError),
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Export(#[from] surprisal_server::ExportError),
    #[error("{0}{hint}", hint = server_hint(.0))]
    Estimator(#[from] surprisal_estimator::Error),
    /// A report that could not be written although all answers are saved.
    #[error(
        "{error}; the results are printed, and the answers are saved: to write the report elsewhere, run the command \
         again with --answers {answers} and another --out"
    )]
    ReportUnwritten { error: Box<Error>, answers: PathBuf },
    #[error(transparent)]
    Bench(#[from] surprisal_load::Error),
    #[error("cannot start the thread that writes the log: {0}")]
    LogThread(std::io::Error),
    #[error("cannot start the threads and the event loop for HTTP: {0}")]
    Runtime(std::io::Error),
    #[error("cannot write to stdout: {0}")]
    Stdout(std::io::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

const KEY_HINT: &str = "; set the API key in SURPRISAL_API_KEY";

/// Returns a hint for a port that cannot be bound.
fn bind_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "is another server running there? choose another port with --port; 0 picks a free one"
        }
        std::io::ErrorKind::PermissionDenied => "choose a port of 1024 or above with --port",
        _ => "choose another address of this machine with --host",
    }
}

/// Returns a hint for a server that cannot be reached, requires a key, or has a different path.
fn server_hint(error: &surprisal_estimator::Error) -> &'static str {
    use surprisal_estimator::Error;
    let last = match error {
        Error::GaveUp { last, .. } => last,
        error => error,
    };
    match last {
        Error::Status { status: 401 | 403, .. } => KEY_HINT,
        Error::Rejected { problem, .. } if problem.status == 401 => KEY_HINT,
        Error::Status { url, .. } | Error::Rejected { url, .. } if url.contains("/v1/v1/") => {
            "; omit /v1 from the server's address"
        }
        Error::Transport { .. } => "; is a server running there? `surprisal serve` starts one; set --url or model.url",
        _ => "",
    }
}

impl Error {
    /// Returns the error for a configuration file.
    pub(crate) fn config(path: &Path, reason: impl ToString) -> Self {
        Self::Config { path: path.to_owned(), reason: reason.to_string() }
    }

    /// Returns the exit code: 2 for wrong usage, and 1 for every other failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Config { .. } | Error::Tls(_) => 2,
            Error::Estimator(surprisal_estimator::Error::Experiment { .. }) => 2,
            Error::Bench(surprisal_load::Error::Invalid { .. }) => 2,
            #[cfg(not(feature = "mistralrs"))]
            Error::NoMistralrs => 2,
            #[cfg(not(feature = "cuda"))]
            Error::NoCuda => 2,
            _ => 1,
        }
    }
}
