//! Which failures of a request pass by themselves, and how long to wait for that.

use std::error::Error as _;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use surprisal_api::{PROBLEM_JSON, Problem};

use crate::error::Error;

/// A server that does not take the connection for this long is not there.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest piece of an unreadable answer that is shown.
const SHOWN: usize = 300;

/// Seconds; nobody waits longer.
const DAY: u64 = 86_400;

/// Exponential backoff with jitter. Scoring changes nothing on the server, so any request may be sent twice.
#[derive(Clone, Debug)]
pub struct Retry {
    /// The first wait; it doubles with every failure.
    pub first: Duration,
    /// The longest wait of one's own choice. A server that says how long to wait (`Retry-After`) is obeyed.
    pub longest: Duration,
    /// No new attempt starts when this long has passed since the first failure, however long it took to fail.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), longest: Duration::from_secs(30), patience: Duration::from_secs(300) }
    }
}

/// One failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether it may pass by itself.
    pub(crate) passing: bool,
    /// How long the server asks to wait.
    pub(crate) wait: Option<Duration>,
}

impl Failure {
    /// One that trying again does not mend.
    pub(crate) fn lasting(error: Error) -> Self {
        Self { error, passing: false, wait: None }
    }

    /// Whether there was no answer at all.
    pub(crate) fn is_transport(&self) -> bool {
        matches!(self.error, Error::Transport { .. })
    }
}

impl Retry {
    /// Attempts until one succeeds.
    pub(crate) async fn run<T, F>(&self, attempt: impl Fn() -> F + Send + Sync) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut trying = self.trying();
        loop {
            let failure = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !failure.passing {
                return Err(failure.error);
            }
            let wait = self.wait(trying.attempts + 1, failure.wait);
            trying.again("trying again", failure.error, wait)?;
            tokio::time::sleep(wait).await;
        }
    }

    /// A request that is about to be tried.
    pub(crate) fn trying(&self) -> Trying {
        Trying { patience: self.patience, start: Instant::now(), failed: None, attempts: 0 }
    }

    /// How long to wait after so many failures: as long as the server asks and a little more, or else by [`backoff`](Self::backoff).
    pub(crate) fn wait(&self, failures: u32, asked: Option<Duration>) -> Duration {
        asked.map_or_else(|| self.backoff(failures), |asked| asked + self.backoff(1))
    }

    /// `first * 2^(failures - 1)`, at most `longest`, of which a random half is left out: clients that failed together do
    /// not come back together.
    fn backoff(&self, failures: u32) -> Duration {
        let whole = self.first.saturating_mul(1 << (failures - 1).min(20)).min(self.longest);
        // The standard library's hash keys are its only randomness; a jitter needs no better.
        let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
        whole.mul_f64(0.5 + 0.5 * random)
    }
}

/// A request from its first attempt on.
pub(crate) struct Trying {
    patience: Duration,
    start: Instant,
    /// When it failed first.
    failed: Option<Instant>,
    attempts: u32,
}

impl Trying {
    /// An attempt failed, and the next one may begin in `wait`, which the log says as `how`: it is an error if that is
    /// beyond patience.
    pub(crate) fn again(&mut self, how: &str, last: Error, wait: Duration) -> Result<(), Error> {
        self.attempts += 1;
        let attempts = self.attempts;
        if self.failed.get_or_insert_with(Instant::now).elapsed() + wait > self.patience {
            return Err(Error::GaveUp { attempts, seconds: self.start.elapsed().as_secs(), last: Box::new(last) });
        }
        tracing::warn!(attempts, ?wait, error = %last, "{how}");
        Ok(())
    }
}

/// Sends a request once; the answer's body.
pub(crate) async fn send(url: &str, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
    let response = request.send().await.map_err(|error| transport(url, error))?;
    if !response.status().is_success() {
        return Err(refusal(url, response).await);
    }
    let body = response.bytes().await.map_err(|error| transport(url, error))?;
    Ok(body.into())
}

fn transport(url: &str, error: reqwest::Error) -> Failure {
    // A connection that was refused or broke, also within the answer (which reqwest may call a decoding error). A slow
    // answer would be as slow again; but where the system gave up a peer that is gone, which has a number, reqwest calls
    // it a timeout too.
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let broke =
        causes.any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|it| it.raw_os_error().is_some()));
    let lasting = (error.is_timeout() && !broke) || error.is_builder() || error.is_redirect();
    // Whoever does not pick up is not called again for as long.
    let wait = (error.is_connect() && error.is_timeout()).then_some(CONNECT_TIMEOUT);
    Failure { passing: error.is_connect() || !lasting, wait, error: Error::transport(url, error) }
}

async fn refusal(url: &str, response: Response) -> Failure {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let wait = header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse::<u64>().ok());
    let is_problem = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(PROBLEM_JSON));
    let body = response.bytes().await.unwrap_or_default();
    let problem = serde_json::from_slice::<Problem>(&body).ok().filter(|_| is_problem);
    let error = match problem {
        Some(problem) => Error::Refused { url: url.to_owned(), problem: Box::new(problem) },
        None => Error::Status {
            url: url.to_owned(),
            status: status.as_u16(),
            body: String::from_utf8_lossy(&body).chars().take(SHOWN).collect(),
        },
    };
    let passing = match status {
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        status => status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
    };
    Failure { error, passing, wait: wait.map(|seconds| Duration::from_secs(seconds.min(DAY))) }
}

impl Error {
    /// A transport error in one line: reqwest's own words hide the cause ("connection refused") in the chain.
    pub(crate) fn transport(url: &str, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            reason = format!("{reason}: {inner}");
            cause = inner.source();
        }
        Self::Transport { url: url.to_owned(), reason }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn patience_begins_with_the_first_failure() {
        let longest = Duration::from_millis(1);
        let retry = Retry { first: longest, longest, patience: Duration::from_millis(200) };
        let attempts = AtomicUsize::new(0);
        let counted = &attempts;
        let attempt = || async move {
            if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                return Ok(());
            }
            tokio::time::sleep(2 * retry.patience).await;
            Err(Failure { passing: true, ..Failure::lasting(Error::invalid("a", 0, "1")) })
        };
        retry.run(attempt).await.unwrap();
        assert_eq!(attempts.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn waits_double_up_to_the_longest_and_vary() {
        let retry =
            Retry { first: Duration::from_millis(100), longest: Duration::from_secs(1), patience: Duration::ZERO };
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
