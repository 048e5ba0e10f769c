//! Cooldowns: periods after a failure in which a server gets no requests.

use std::time::{Duration, Instant};

use crate::source::retry::RetryPolicy;

/// The cooldown of one server; the default is for a server that has not failed.
#[derive(Debug, Default)]
pub(crate) struct Cooldown {
    /// Failures since the last success; requests that fail together count once.
    failures: u32,
    until: Option<Instant>,
    /// Length of the last cooldown.
    length: Duration,
    /// `true` if a probe is in flight: one request that checks whether the server responds again.
    is_probing: bool,
}

impl Cooldown {
    /// Starts or extends the cooldown after a failure. `requested` is a wait that the failure itself requires, such as
    /// `Retry-After`.
    ///
    /// Requests that were in flight together and fail together count as one failure.
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

    /// Returns whether a request may be sent now. If there are other servers, only one request, the probe, may be sent
    /// after a cooldown. Others may follow once the probe succeeds, or once the length of the cooldown has passed
    /// again.
    pub(crate) fn admit(&mut self, has_others: bool) -> bool {
        let now = Instant::now();
        match self.until {
            Some(until) if until > now => return false,
            Some(_) if has_others => (self.until, self.is_probing) = (Some(now + self.length), true),
            _ => {}
        }
        true
    }

    /// Returns the remaining time of the cooldown.
    pub(crate) fn remaining(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn one_outage_counts_as_one_failure() {
        let mut cooldown = Cooldown::default();
        let retry = RetryPolicy { initial_wait: HOUR, max_wait: 8 * HOUR, ..RetryPolicy::default() };
        (0..8).for_each(|_| cooldown.record_failure(&retry, None));
        assert_eq!(cooldown.failures, 1);
        assert!(cooldown.until.is_some_and(|until| until <= Instant::now() + HOUR));
        cooldown.record_failure(&retry, Some(9 * HOUR));
        assert!(cooldown.until.is_some_and(|until| until > Instant::now() + 8 * HOUR), "a requested wait is respected");
        cooldown.until = Some(Instant::now());
        cooldown.record_failure(&retry, None);
        assert_eq!(cooldown.failures, 2, "a request after the cooldown failed");
    }

    #[test]
    fn one_request_probes_a_server_after_its_cooldown() {
        let mut cooldown = Cooldown::default();
        let retry = RetryPolicy { initial_wait: HOUR, max_wait: HOUR, ..RetryPolicy::default() };
        assert!(cooldown.admit(true) && cooldown.admit(true), "the server has not failed yet");
        cooldown.record_failure(&retry, None);
        assert!(!cooldown.admit(true) && !cooldown.admit(false));
        cooldown.until = Some(Instant::now());
        assert!(cooldown.admit(false) && cooldown.admit(false), "there is no other server");
        assert!(cooldown.admit(true) && !cooldown.admit(true));
        cooldown.record_failure(&retry, None);
        assert_eq!(cooldown.failures, 2);
    }
}
