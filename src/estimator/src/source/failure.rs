//! Failed attempts to send a request: the error, and whether and when to retry.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use surprisal_api::{PROBLEM_JSON, Problem};

use crate::error::Error;

/// Time within which a server must accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of characters of a response body that an error shows, if the body is not a problem document.
const SHOWN_CHARACTERS: usize = 300;

/// Maximum number of bytes of an error response that are read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Maximum `Retry-After` that is respected, in seconds: one day.
const MAX_RETRY_AFTER: u64 = 86_400;

/// One failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// `true` if the same request may succeed later.
    pub(crate) is_transient: bool,
    /// The wait that the failure requires before the next attempt; `None` to use the policy's backoff.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// Returns a failure that a retry would only repeat.
    pub(crate) fn permanent(error: Error) -> Self {
        Self { error, is_transient: false, retry_after: None }
    }

    /// Returns whether there was no complete response.
    pub(crate) fn is_transport(&self) -> bool {
        matches!(self.error, Error::Transport { .. })
    }
}

/// Sends a request once and returns the response's body, which may have at most `limit` bytes.
pub(crate) async fn send(url: &str, request: RequestBuilder, limit: usize) -> Result<Vec<u8>, Failure> {
    let response = request.send().await.map_err(|error| transport_failure(url, error))?;
    if !response.status().is_success() {
        return Err(response_failure(url, response).await);
    }
    let (body, is_whole) = read_up_to(limit, response).await.map_err(|error| transport_failure(url, error))?;
    if is_whole {
        return Ok(body);
    }
    let reason = format!("it is longer than {limit} bytes, the most that a response to this request can have");
    Err(Failure::permanent(Error::UnexpectedResponse { url: url.to_owned(), reason }))
}

/// Reads a body, or its first `limit` bytes. Returns whether that is the whole body.
async fn read_up_to(limit: usize, mut response: Response) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let fits = chunk.len().min(limit - body.len());
        body.extend_from_slice(&chunk[..fits]);
        if fits < chunk.len() {
            return Ok((body, false));
        }
    }
    Ok((body, true))
}

/// Returns the failure of a request without a whole response.
fn transport_failure(url: &str, error: reqwest::Error) -> Failure {
    // A refused or broken connection is transient, even if it breaks within the response (which reqwest may report as a
    // decoding error). A timeout is not: the next response would be just as slow. But reqwest also reports a timeout if
    // the system gives up on a peer that is gone; that error has an OS error number.
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let broke =
        causes.any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|it| it.raw_os_error().is_some()));
    let is_permanent = (error.is_timeout() && !broke) || error.is_builder() || error.is_redirect();
    // After a connection timeout, wait as long again before the next attempt.
    let retry_after = (error.is_connect() && error.is_timeout()).then_some(CONNECT_TIMEOUT);
    Failure { is_transient: error.is_connect() || !is_permanent, retry_after, error: transport_error(url, error) }
}

/// Returns the failure that an error response describes.
async fn response_failure(url: &str, response: Response) -> Failure {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let seconds = header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse::<u64>().ok());
    let is_problem = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(PROBLEM_JSON));
    let (body, _) = read_up_to(MAX_ERROR_BYTES, response).await.unwrap_or_default();
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

/// Returns a transport error as one line with all causes, such as "connection refused": reqwest's own message omits
/// them.
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
