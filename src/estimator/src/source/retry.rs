//! Retries: the policy for failed requests, and the attempts to send one request.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::source::failure::Failure;

/// A retry policy: exponential backoff with jitter. Scoring changes nothing on the server, so any request may be sent
/// twice.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Wait after the first failure; it doubles with every further failure.
    pub initial_wait: Duration,
    /// Maximum wait of the backoff. A server's `Retry-After` is respected even if it is longer.
    pub max_wait: Duration,
    /// Time since the first failure after which no new attempt starts. The duration of the first attempt does not
    /// count.
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
            attempts.record_failure("request failed; retrying", failure.error, wait)?;
            tokio::time::sleep(wait).await;
        }
    }

    /// Returns a counter of the attempts to send one request.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts { give_up_after: self.give_up_after, start: Instant::now(), first_failure: None, failed: 0 }
    }

    /// Returns the wait after this many failures: `retry_after` plus the jittered initial wait, or else the
    /// [`backoff`](Self::backoff).
    pub(crate) fn wait(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        retry_after.map_or_else(|| self.backoff(failures), |wait| wait + self.backoff(1))
    }

    /// Returns `initial_wait * 2^(failures - 1)`, at most `max_wait`, minus a random share of up to one half, so that
    /// clients that failed together do not retry together.
    fn backoff(&self, failures: u32) -> Duration {
        let whole = self.initial_wait.saturating_mul(1 << (failures - 1).min(20)).min(self.max_wait);
        // The standard library's only randomness is in its hash keys, which is good enough for jitter.
        let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
        whole.mul_f64(0.5 + 0.5 * random)
    }
}

/// The attempts to send one request.
pub(crate) struct Attempts {
    give_up_after: Duration,
    start: Instant,
    first_failure: Option<Instant>,
    failed: u32,
}

impl Attempts {
    /// Records a failed attempt, and logs the message `action`. The next attempt is due after `wait`.
    ///
    /// # Errors
    /// [`Error::GaveUp`] if the next attempt would be due later than `give_up_after`.
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
    fn waits_double_up_to_the_maximum_and_vary() {
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
