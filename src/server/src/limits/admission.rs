//! Admission: limits on the requests, body bytes and tokens in flight, shared fairly among clients.
//!
//! A request counts from before its body is read, its body's bytes from when they arrive until they are parsed, and its tokens
//! from when they are counted. A client that holds nothing may take all free capacity. A client that holds something may take
//! half of the free capacity, and nothing once it holds [`MAX_HELD_TO_FREE`] times the free capacity: dynamic thresholds
//! (Choudhury and Hahne, IEEE/ACM Transactions on Networking 1998). So a single client gets about 8/9 of the capacity, two get
//! about 8/17 each, and a new client always finds some.
//!
//! Whether a client may take any more does not depend on the amount. The server therefore rejects a client that may take
//! nothing before it reads a byte of the body, and never rejects one early that would have found capacity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::config::ServerConfig;
use super::pressure::Pressure;
use crate::problem::{self, Failure};

/// The most that a client may hold, as a multiple of what is free.
const MAX_HELD_TO_FREE: u64 = 8;

/// The limits on what is in flight. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    requests: Limit,
    body_bytes: Limit,
    tokens: Limit,
    pressure: Arc<Pressure>,
}

/// A limit on one resource, and how much of it is held.
#[derive(Clone, Debug)]
struct Limit {
    unit: &'static str,
    limit: u32,
    held: Arc<Mutex<Held>>,
}

/// The held amount of a resource, in total and by account.
#[derive(Debug, Default)]
struct Held {
    total: u32,
    /// Accounts that hold nothing have no entry.
    by_account: HashMap<u64, u32>,
}

/// Capacity that an account holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    held: Arc<Mutex<Held>>,
    account: u64,
    amount: u32,
}

/// A limit that a request exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exceeded {
    /// All clients together hold too much.
    Server { held: u32 },
    /// The client itself holds too much: the rest is reserved for other clients.
    Client { held: u32 },
}

impl Admission {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            requests: Limit::new("requests", config.max_waiting_requests),
            body_bytes: Limit::new("body bytes", config.body_bytes_limit()),
            tokens: Limit::new("tokens", config.max_waiting_tokens),
            pressure: Arc::new(Pressure::new(Instant::now())),
        }
    }

    /// Returns the number of requests in flight, including those whose bodies are being read.
    pub(crate) fn requests(&self) -> u32 {
        lock(&self.requests.held).total
    }

    /// Returns the bytes of the bodies that are being read or parsed.
    pub(crate) fn body_bytes(&self) -> u32 {
        lock(&self.body_bytes.held).total
    }

    /// Returns the number of tokens in flight.
    pub(crate) fn tokens(&self) -> u32 {
        lock(&self.tokens.held).total
    }

    /// Rejects a request with more tokens than the server ever holds at a time.
    pub(crate) fn check_tokens(&self, tokens: usize) -> Result<u32, Failure> {
        match u32::try_from(tokens) {
            Ok(tokens) if tokens <= self.tokens.limit => Ok(tokens),
            _ => Err(problem::request_too_large(tokens, self.tokens.limit)),
        }
    }

    /// Admits a client's request before its body is read.
    pub(crate) fn admit_request(&self, account: u64) -> Result<Permit, Failure> {
        let permit = self.requests.acquire(account, 1);
        permit.map_err(|exceeded| self.reject(&self.requests, exceeded))
    }

    /// Returns an empty permit for a client's body, to [grow](Self::grow_body) as the body arrives.
    pub(crate) fn body_permit(&self, account: u64) -> Permit {
        self.body_bytes.empty_permit(account)
    }

    /// Adds bytes that arrived to a body's permit.
    pub(crate) fn grow_body(&self, body: &mut Permit, bytes: usize) -> Result<(), Failure> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.body_bytes.grow(body, bytes).map_err(|exceeded| self.reject(&self.body_bytes, exceeded))
    }

    /// Rejects a client that may not take a single token now.
    pub(crate) fn precheck(&self, account: u64) -> Result<(), Failure> {
        let check = self.tokens.check(&lock(&self.tokens.held), account, 1);
        check.map_err(|exceeded| self.reject(&self.tokens, exceeded))
    }

    /// Admits a client's tokens now or not at all: it is up to the client to wait and retry.
    pub(crate) fn admit_tokens(&self, account: u64, tokens: u32) -> Result<Permit, Failure> {
        let permit = self.tokens.acquire(account, tokens).map_err(|exceeded| self.reject(&self.tokens, exceeded))?;
        self.pressure.record_admitted(Instant::now());
        Ok(permit)
    }

    fn reject(&self, &Limit { unit, limit, .. }: &Limit, exceeded: Exceeded) -> Failure {
        let retry_after = self.pressure.record_rejected(Instant::now());
        match exceeded {
            Exceeded::Server { held } => problem::overloaded(held, limit, unit, retry_after),
            Exceeded::Client { held } => problem::overloaded_by_client(held, limit, unit, retry_after),
        }
    }
}

impl Limit {
    fn new(unit: &'static str, limit: u32) -> Self {
        Self { unit, limit, held: Arc::default() }
    }

    /// Checks whether a client may take this amount. If it may not take 1, it may not take any amount.
    fn check(&self, held: &Held, account: u64, amount: u32) -> Result<(), Exceeded> {
        let free = self.limit - held.total;
        if amount > free {
            return Err(Exceeded::Server { held: held.total });
        }
        match held.by_account.get(&account) {
            Some(&by_client) if amount > free / 2 || u64::from(by_client) >= MAX_HELD_TO_FREE * u64::from(free) => {
                Err(Exceeded::Client { held: by_client })
            }
            _ => Ok(()),
        }
    }

    fn acquire(&self, account: u64, amount: u32) -> Result<Permit, Exceeded> {
        let mut permit = self.empty_permit(account);
        self.grow(&mut permit, amount)?;
        Ok(permit)
    }

    fn empty_permit(&self, account: u64) -> Permit {
        Permit { held: Arc::clone(&self.held), account, amount: 0 }
    }

    fn grow(&self, permit: &mut Permit, amount: u32) -> Result<(), Exceeded> {
        let mut held = lock(&self.held);
        self.check(&held, permit.account, amount)?;
        if amount > 0 {
            held.total += amount;
            *held.by_account.entry(permit.account).or_default() += amount;
            permit.amount += amount;
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        held.total -= self.amount;
        if let Some(by_account) = held.by_account.get_mut(&self.account) {
            *by_account -= self.amount;
            if *by_account == 0 {
                held.by_account.remove(&self.account);
            }
        }
    }
}

/// Locks the counts. They are consistent after each step, so a panic elsewhere leaves them right.
fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn limit(limit: u32) -> Limit {
        Limit::new("tokens", limit)
    }

    #[test]
    fn one_client_leaves_capacity_for_the_next() {
        let limit = limit(900);
        let fill = |account: u64| -> Vec<Permit> { std::iter::from_fn(|| limit.acquire(account, 1).ok()).collect() };
        let mut permits = BTreeMap::from([(1, fill(1))]);
        assert_eq!(permits[&1].len(), 800);
        // The second client takes what the first left, and their shares become equal as the first releases its own.
        permits.insert(2, fill(2));
        assert!((80..=90).contains(&permits[&2].len()), "{}", permits[&2].len());
        for _ in 0..900 {
            for account in [1, 2] {
                permits.get_mut(&account).unwrap().pop();
                let more = fill(account);
                permits.get_mut(&account).unwrap().extend(more);
            }
        }
        let shares = [permits[&1].len(), permits[&2].len()];
        assert!(shares.iter().all(|share| (400..=450).contains(share)), "{shares:?}");
        drop(permits);
        let held = lock(&limit.held);
        assert!(held.total == 0 && held.by_account.is_empty(), "{held:?}");
    }

    #[test]
    fn a_new_client_may_take_everything_and_others_half_of_what_is_free() {
        let limit = limit(10);
        let all = limit.acquire(1, 10).unwrap();
        assert!(limit.acquire(2, 1).is_err() && limit.acquire(1, 1).is_err());
        drop(all);
        let _some = limit.acquire(1, 4).unwrap();
        assert!(matches!(limit.acquire(1, 4), Err(Exceeded::Client { held: 4 })));
        let _more = limit.acquire(1, 3).unwrap();
        assert!(matches!(limit.acquire(2, 4), Err(Exceeded::Server { held: 7 })));
        let _rest = limit.acquire(2, 3).unwrap();
        assert_eq!(lock(&limit.held).total, 10);
    }

    /// Fills the limit with requests of one size: their client is rejected early exactly when no size would be admitted.
    #[test]
    fn a_client_is_rejected_early_only_if_nothing_would_be_admitted() {
        for size in 1..200 {
            let limit = limit(16384);
            let permits: Vec<Permit> = std::iter::from_fn(|| limit.acquire(0, size).ok()).collect();
            let held = lock(&limit.held);
            assert!(limit.check(&held, 0, 1).is_err(), "{} requests of {size} are held", permits.len());
            assert!((1..=16384).all(|amount| limit.check(&held, 0, amount).is_err()));
            assert!(limit.check(&held, 1, 1000).is_ok(), "another client is admitted");
            drop(held);
        }
    }
}
