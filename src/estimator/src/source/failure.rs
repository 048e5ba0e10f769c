//! Failures of one attempt: what a failed request or an error response means, and whether to retry it.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use surprisal_api::{PROBLEM_JSON, Problem};

use crate::error::Error;

/// The longest time that a server may take to accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most characters of an unreadable error response that are shown.
const SHOWN_CHARACTERS: usize = 300;

/// The longest wait that a server may ask for, in seconds: a day.
const MAX_RETRY_AFTER: u64 = 86_400;

/// One failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// True if the same request may succeed later.
    pub(crate) is_transient: bool,
    /// The wait that the server asks for.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// Returns a failure that another attempt would meet again.
    pub(crate) fn permanent(error: Error) -> Self {
        Self { error, is_transient: false, retry_after: None }
    }

    /// Returns whether there was no response at all.
    pub(crate) fn is_transport(&self) -> bool {
        matches!(self.error, Error::Transport { .. })
    }
}

/// Sends a request once and returns the response's body.
pub(crate) async fn send(url: &str, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
    let response = request.send().await.map_err(|error| transport_failure(url, error))?;
    if !response.status().is_success() {
        return Err(response_failure(url, response).await);
    }
    let body = response.bytes().await.map_err(|error| transport_failure(url, error))?;
    Ok(body.into())
}

/// Returns the failure of a request without a whole response.
fn transport_failure(url: &str, error: reqwest::Error) -> Failure {
    // A refused or broken connection is transient, also within the response (which reqwest may call a decoding error). A timeout
    // is not: the response would be as slow again. But reqwest also says "timeout" where the system gave up a peer that is gone;
    // that error has a number.
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let broke =
        causes.any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|it| it.raw_os_error().is_some()));
    let is_permanent = (error.is_timeout() && !broke) || error.is_builder() || error.is_redirect();
    // After a connection timeout, wait for as long again.
    let retry_after = (error.is_connect() && error.is_timeout()).then_some(CONNECT_TIMEOUT);
    Failure { is_transient: error.is_connect() || !is_permanent, retry_after, error: transport_error(url, error) }
}

/// Reads the failure that an error response describes.
async fn response_failure(url: &str, response: Response) -> Failure {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let seconds = header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse::<u64>().ok());
    let is_problem = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(PROBLEM_JSON));
    let body = response.bytes().await.unwrap_or_default();
    let problem = serde_json::from_slice::<Problem>(&body).ok().filter(|_| is_problem);
    let error = match problem {
        Some(problem) => Error::Rejected { url: url.to_owned(), problem: Box::new(problem) },
        None => Error::Status {
            url: url.to_owned(),
            status: status.as_u16(),
            body: String::from_utf8_lossy(&body).chars().take(SHOWN_CHARACTERS).collect(),
        },
    };
    let is_transient = match status {
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        status => status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
    };
    let retry_after = seconds.map(|seconds| Duration::from_secs(seconds.min(MAX_RETRY_AFTER)));
    Failure { error, is_transient, retry_after }
}

/// Returns a transport error in one line: reqwest's own message hides the cause ("connection refused") in the chain.
pub(crate) fn transport_error(url: &str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    Error::Transport { url: url.to_owned(), reason }
}
