//! Retries: which failed requests are sent again, and how long to wait before that.

use std::error::Error as _;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use surprisal_api::{PROBLEM_JSON, Problem};

use crate::error::Error;

/// How long a server may take to accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most characters of an unreadable error response that are shown.
const SHOWN_CHARACTERS: usize = 300;

/// The longest wait that a server may ask for, in seconds: a day.
const MAX_RETRY_AFTER: u64 = 86_400;

/// Exponential backoff with jitter. Scoring changes nothing on the server, so any request may be sent twice.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// The wait after the first failure; it doubles with every further failure.
    pub initial_wait: Duration,
    /// The longest wait that the client chooses itself. A server that says how long to wait (`Retry-After`) is obeyed.
    pub max_wait: Duration,
    /// No new attempt starts when this long has passed since the first failure, however long it took to fail.
    pub give_up_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_wait: Duration::from_millis(250),
            max_wait: Duration::from_secs(30),
            give_up_after: Duration::from_secs(300),
        }
    }
}

/// One failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether the same request may succeed later.
    pub(crate) is_transient: bool,
    /// How long the server asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that another attempt would meet again.
    pub(crate) fn permanent(error: Error) -> Self {
        Self { error, is_transient: false, retry_after: None }
    }

    /// Whether there was no response at all.
    pub(crate) fn is_transport(&self) -> bool {
        matches!(self.error, Error::Transport { .. })
    }
}

impl RetryPolicy {
    /// Repeats `attempt` until it succeeds, fails permanently, or the policy gives up.
    pub(crate) async fn run<T, F>(&self, attempt: impl Fn() -> F + Send + Sync) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut attempts = self.attempts();
        loop {
            let failure = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !failure.is_transient {
                return Err(failure.error);
            }
            let wait = self.wait(attempts.failed + 1, failure.retry_after);
            attempts.record_failure("trying again", failure.error, wait)?;
            tokio::time::sleep(wait).await;
        }
    }

    /// Starts to count the attempts of one request.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts { give_up_after: self.give_up_after, start: Instant::now(), first_failure: None, failed: 0 }
    }

    /// Returns how long to wait after so many failures: as long as the server asks and a little more, or else by
    /// [`backoff`](Self::backoff).
    pub(crate) fn wait(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        retry_after.map_or_else(|| self.backoff(failures), |wait| wait + self.backoff(1))
    }

    /// Returns `initial_wait * 2^(failures - 1)`, at most `max_wait`, less a random part of up to a half: clients that failed
    /// together do not come back together.
    fn backoff(&self, failures: u32) -> Duration {
        let whole = self.initial_wait.saturating_mul(1 << (failures - 1).min(20)).min(self.max_wait);
        // The standard library's hash keys are its only randomness; a jitter needs no better.
        let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
        whole.mul_f64(0.5 + 0.5 * random)
    }
}

/// The attempts of one request.
pub(crate) struct Attempts {
    give_up_after: Duration,
    start: Instant,
    first_failure: Option<Instant>,
    failed: u32,
}

impl Attempts {
    /// Records a failed attempt after which the next one may start in `wait`; the log calls it `action`. Fails if that is too late.
    pub(crate) fn record_failure(&mut self, action: &str, last: Error, wait: Duration) -> Result<(), Error> {
        self.failed += 1;
        let attempts = self.failed;
        if self.first_failure.get_or_insert_with(Instant::now).elapsed() + wait > self.give_up_after {
            return Err(Error::GaveUp { attempts, seconds: self.start.elapsed().as_secs(), last: Box::new(last) });
        }
        tracing::warn!(attempts, ?wait, error = %last, "{action}");
        Ok(())
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

/// A failure without a whole response.
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

/// The failure that an error response describes.
async fn response_failure(url: &str, response: Response) -> Failure {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let seconds = header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse::<u64>().ok());
    let is_problem = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(PROBLEM_JSON));
    let body = response.bytes().await.unwrap_or_default();
    let problem = serde_json::from_slice::<Problem>(&body).ok().filter(|_| is_problem);
    let error = match problem {
        Some(problem) => Error::Refused { url: url.to_owned(), problem: Box::new(problem) },
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

/// A transport error in one line: reqwest's own message hides the cause ("connection refused") in the chain.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_time_to_give_up_counts_from_the_first_failure() {
        let millisecond = Duration::from_millis(1);
        let give_up_after = Duration::from_millis(200);
        let retry = RetryPolicy { initial_wait: millisecond, max_wait: millisecond, give_up_after };
        let attempts = AtomicUsize::new(0);
        let counted = &attempts;
        let attempt = || async move {
            if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                return Ok(());
            }
            tokio::time::sleep(2 * give_up_after).await;
            Err(Failure { is_transient: true, ..Failure::permanent(Error::invalid("a", 0, "1")) })
        };
        retry.run(attempt).await.unwrap();
        assert_eq!(attempts.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn waits_double_up_to_the_longest_and_vary() {
        let retry = RetryPolicy {
            initial_wait: Duration::from_millis(100),
            max_wait: Duration::from_secs(1),
            give_up_after: Duration::ZERO,
        };
        for (failures, whole) in [(1, 100), (2, 200), (4, 800), (5, 1000), (200, 1000)] {
            let wait = retry.backoff(failures).as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{failures}: {wait} ms");
        }
        let waits: std::collections::HashSet<_> = (0..8).map(|_| retry.backoff(9)).collect();
        assert!(waits.len() > 1);
        let asked = retry.wait(3, Some(Duration::from_secs(7))).as_millis();
        assert!((7050..=7100).contains(&asked), "{asked} ms");
    }
}
