//! Cooldowns: after a failure a server gets no requests for a while.

use std::time::{Duration, Instant};

use crate::source::retry::RetryPolicy;

/// The cooldown of one server after a failure; by default there was none.
#[derive(Debug, Default)]
pub(crate) struct Cooldown {
    /// Failures since the last success; requests that fail together count once.
    failures: u32,
    until: Option<Instant>,
    /// The last cooldown's length.
    length: Duration,
    /// True if a probe is in flight: one request that finds out whether the server responds again.
    is_probing: bool,
}

impl Cooldown {
    /// Starts or extends the cooldown after a failure. `requested` is the wait that the failure itself asks for.
    ///
    /// Requests that were in flight together fail together: that is one failure.
    pub(crate) fn record_failure(&mut self, retry: &RetryPolicy, requested: Option<Duration>) {
        let now = Instant::now();
        if self.is_probing || self.until.is_none_or(|until| until <= now) {
            self.failures = self.failures.saturating_add(1);
        }
        self.is_probing = false;
        let wait = retry.wait(self.failures, requested);
        let until = self.until.map_or(now, |until| until.max(now)).max(now + wait);
        (self.until, self.length) = (Some(until), until - now);
    }

    /// Decides whether a request may be sent now. Where there are other servers, only one request after a cooldown may: a probe. The
    /// others wait for as long as the cooldown was.
    pub(crate) fn admit(&mut self, has_others: bool) -> bool {
        let now = Instant::now();
        match self.until {
            Some(until) if until > now => return false,
            Some(_) if has_others => (self.until, self.is_probing) = (Some(now + self.length), true),
            _ => {}
        }
        true
    }

    /// Returns how much of the cooldown is left.
    pub(crate) fn remaining(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn one_outage_is_one_failure_however_many_requests_it_meets() {
        let mut cooldown = Cooldown::default();
        let retry = RetryPolicy { initial_wait: HOUR, max_wait: 8 * HOUR, ..RetryPolicy::default() };
        (0..8).for_each(|_| cooldown.record_failure(&retry, None));
        assert_eq!(cooldown.failures, 1);
        assert!(cooldown.until.is_some_and(|until| until <= Instant::now() + HOUR));
        cooldown.record_failure(&retry, Some(9 * HOUR));
        assert!(cooldown.until.is_some_and(|until| until > Instant::now() + 8 * HOUR), "a requested wait is obeyed");
        cooldown.until = Some(Instant::now());
        cooldown.record_failure(&retry, None);
        assert_eq!(cooldown.failures, 2, "another request was sent, and failed");
    }

    #[test]
    fn one_request_probes_a_server_after_its_cooldown() {
        let mut cooldown = Cooldown::default();
        let retry = RetryPolicy { initial_wait: HOUR, max_wait: HOUR, ..RetryPolicy::default() };
        assert!(cooldown.admit(true) && cooldown.admit(true), "it never failed");
        cooldown.record_failure(&retry, None);
        assert!(!cooldown.admit(true) && !cooldown.admit(false));
        cooldown.until = Some(Instant::now());
        assert!(cooldown.admit(false) && cooldown.admit(false), "there is no other server");
        assert!(cooldown.admit(true) && !cooldown.admit(true));
        cooldown.record_failure(&retry, None);
        assert_eq!(cooldown.failures, 2);
    }
}
