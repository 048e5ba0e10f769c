//! Admission: limits on the requests, body bytes, queries, tokens and response bytes in flight, shared fairly among
//! clients.
//!
//! A request is counted before its body is read. The bytes of its body count from their arrival until they are parsed.
//! Its queries and tokens count from the time they are known until the response is written, and the bytes of the
//! response from the time they are written until they are sent. A client that holds nothing may take all free capacity.
//! A client that holds something may take at most half of the free capacity, and nothing once it holds
//! [`MAX_HELD_TO_FREE`] times the free capacity. These limits are dynamic thresholds (Choudhury and Hahne, IEEE/ACM
//! Transactions on Networking 1998). So a single client gets about 8/9 of the capacity, two clients get about 8/17
//! each, and a new client always finds some free capacity.
//!
//! A client that may not take one more unit may not take any larger amount either. The server can therefore reject such
//! a client before it reads the body, and it never rejects a request early that it could have admitted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::config::ServerConfig;
use super::pressure::Pressure;
use crate::problem::{self, Failure};

/// The maximum amount that a client may hold, as a multiple of the free capacity.
const MAX_HELD_TO_FREE: u64 = 8;

/// The limits on requests, body bytes, queries, tokens and response bytes in flight. Clones share the counts.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    requests: Limit,
    body_bytes: Limit,
    tokens: Limit,
    response_bytes: Limit,
    compressors: Limit,
    queries: Limit,
    pressure: Arc<Pressure>,
}

/// A limit on one resource, and the amount that is held.
#[derive(Clone, Debug)]
struct Limit {
    unit: &'static str,
    limit: u32,
    count: Arc<Count>,
}

/// The held amount of a resource, and the tasks that wait for some of it.
#[derive(Debug, Default)]
struct Count {
    held: Mutex<Held>,
    /// Notified when a permit shrinks or is dropped.
    released: Notify,
}

/// The held amount of a resource, in total and by account.
#[derive(Debug, Default)]
struct Held {
    total: u32,
    /// Accounts that hold nothing have no entry.
    by_account: HashMap<u64, u32>,
}

/// Capacity that an account holds until the permit is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    count: Arc<Count>,
    account: u64,
    amount: u32,
}

/// The permit for the bytes of a response that is sent at once. The response carries it as an extension, and its
/// connection holds it until the socket has taken the response, compressed or not.
#[derive(Clone, Debug)]
pub(crate) struct ResponsePermit {
    _permit: Arc<Permit>,
}

/// The capacity that a request's work holds until the permit is dropped.
#[derive(Debug)]
pub(crate) struct WorkPermit {
    _queries: Permit,
    _tokens: Permit,
}

/// The reason why a limit rejects a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exceeded {
    /// Too little free capacity for the request.
    Server { held: u32 },
    /// Too much capacity held by the client itself; the rest is reserved for other clients.
    Client { held: u32 },
}

impl Admission {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            requests: Limit::new("requests", config.max_waiting_requests),
            body_bytes: Limit::new("body bytes", config.body_bytes_limit()),
            tokens: Limit::new("tokens", config.max_waiting_tokens),
            response_bytes: Limit::new("response bytes", config.response_bytes_limit()),
            compressors: Limit::new("compressor bytes", config.response_bytes_limit()),
            queries: Limit::new("queries", config.queries_limit()),
            pressure: Arc::new(Pressure::new(Instant::now())),
        }
    }

    /// Returns the number of requests in flight, including those whose bodies are being read.
    pub(crate) fn requests(&self) -> u32 {
        lock(&self.requests.count).total
    }

    /// Returns the number of bytes of the bodies that are being read or parsed.
    pub(crate) fn body_bytes(&self) -> u32 {
        lock(&self.body_bytes.count).total
    }

    /// Returns the number of tokens in flight.
    pub(crate) fn tokens(&self) -> u32 {
        lock(&self.tokens.count).total
    }

    /// Returns the number of bytes of the responses that are being written, or that wait for their clients to read
    /// them, with their compressors.
    pub(crate) fn response_bytes(&self) -> u32 {
        lock(&self.response_bytes.count).total.saturating_add(lock(&self.compressors.count).total)
    }

    /// Returns the number of queries in flight.
    pub(crate) fn queries(&self) -> u32 {
        lock(&self.queries.count).total
    }

    /// Rejects a request that by itself exceeds the limit on tokens in flight. Returns the number of tokens.
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

    /// Adds received bytes to a body's permit.
    pub(crate) fn grow_body(&self, body: &mut Permit, bytes: usize) -> Result<(), Failure> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.body_bytes.grow(body, bytes).map_err(|exceeded| self.reject(&self.body_bytes, exceeded))
    }

    /// Rejects a client that may not take a single token or query now.
    pub(crate) fn precheck(&self, account: u64) -> Result<(), Failure> {
        for limit in [&self.tokens, &self.queries] {
            let check = limit.check(&lock(&limit.count), account, 1);
            check.map_err(|exceeded| self.reject(limit, exceeded))?;
        }
        Ok(())
    }

    /// Admits a client's queries and their tokens.
    pub(crate) fn admit_work(&self, account: u64, queries: usize, tokens: u32) -> Result<WorkPermit, Failure> {
        let count = u32::try_from(queries).unwrap_or(u32::MAX);
        let queries = self.queries.acquire(account, count).map_err(|exceeded| self.reject(&self.queries, exceeded))?;
        Ok(WorkPermit { _queries: queries, _tokens: self.admit_tokens(account, tokens)? })
    }

    /// Admits a client's tokens, or rejects them at once: there is no queue, so the client has to wait and retry.
    pub(crate) fn admit_tokens(&self, account: u64, tokens: u32) -> Result<Permit, Failure> {
        let permit = self.tokens.acquire(account, tokens).map_err(|exceeded| self.reject(&self.tokens, exceeded))?;
        self.pressure.record_admitted(Instant::now());
        Ok(permit)
    }

    /// Admits a client's whole response, or rejects it at once.
    pub(crate) fn admit_response(&self, account: u64, bytes: usize) -> Result<Permit, Failure> {
        let permit = self.response_bytes.acquire(account, self.response_amount(bytes));
        let mut permit = permit.map_err(|exceeded| self.reject(&self.response_bytes, exceeded))?;
        permit.resize(bytes);
        Ok(permit)
    }

    /// Waits for capacity for the next part of a response that has begun. The server cannot reject it any more.
    pub(crate) async fn reserve_response(&self, account: u64, bytes: usize) -> Permit {
        self.response_bytes.wait(account, self.response_amount(bytes)).await
    }

    /// Waits for capacity for a compressor, which is held for a whole response. Compressors have a limit of their own:
    /// otherwise responses that hold compressors could wait for each other's parts.
    pub(crate) async fn reserve_compressor(&self, account: u64, bytes: usize) -> Permit {
        self.compressors.wait(account, self.response_amount(bytes)).await
    }

    /// Returns the amount to acquire for a part of a response before it is written: at most a quarter of the limit, so
    /// that every part is written at some time. Once it is written, it counts [in full](Permit::resize).
    fn response_amount(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.response_bytes.limit / 4)
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
        Self { unit, limit, count: Arc::default() }
    }

    /// Checks whether a client may take this amount. A client that may not take 1 may not take any amount.
    fn check(&self, held: &Held, account: u64, amount: u32) -> Result<(), Exceeded> {
        // Resized permits may exceed the limit.
        let free = self.limit.saturating_sub(held.total);
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

    /// Acquires the amount as soon as the account may have it.
    async fn wait(&self, account: u64, amount: u32) -> Permit {
        loop {
            let released = self.count.released.notified();
            if let Ok(permit) = self.acquire(account, amount) {
                return permit;
            }
            released.await;
        }
    }

    fn empty_permit(&self, account: u64) -> Permit {
        Permit { count: Arc::clone(&self.count), account, amount: 0 }
    }

    fn grow(&self, permit: &mut Permit, amount: u32) -> Result<(), Exceeded> {
        if amount == 0 {
            return Ok(());
        }
        let mut held = lock(&self.count);
        self.check(&held, permit.account, amount)?;
        held.total += amount;
        *held.by_account.entry(permit.account).or_default() += amount;
        permit.amount += amount;
        Ok(())
    }
}

impl Permit {
    /// Returns the account that holds the capacity.
    pub(crate) fn account(&self) -> u64 {
        self.account
    }

    /// Holds this amount from now on, even if that exceeds the limit.
    pub(crate) fn resize(&mut self, amount: usize) {
        let more = u32::try_from(amount).unwrap_or(u32::MAX).saturating_sub(self.amount);
        if more > 0 {
            let mut held = lock(&self.count);
            let more = more.min(u32::MAX - held.total);
            held.total += more;
            *held.by_account.entry(self.account).or_default() += more;
            self.amount += more;
        }
        self.shrink(amount);
    }

    /// Gives back all but this amount.
    pub(crate) fn shrink(&mut self, amount: usize) {
        let released = self.amount.saturating_sub(u32::try_from(amount).unwrap_or(u32::MAX));
        if released == 0 {
            return;
        }
        let mut held = lock(&self.count);
        held.total -= released;
        if let Some(by_account) = held.by_account.get_mut(&self.account) {
            *by_account -= released;
            if *by_account == 0 {
                held.by_account.remove(&self.account);
            }
        }
        drop(held);
        self.amount -= released;
        self.count.released.notify_waiters();
    }
}

impl ResponsePermit {
    /// Turns a permit into that of a response with this number of bytes.
    pub(crate) fn new(mut permit: Permit, bytes: usize) -> Self {
        permit.resize(bytes);
        Self { _permit: Arc::new(permit) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Locks the counts. Every update leaves them consistent, so a panic while the lock is held does no harm.
fn lock(count: &Count) -> MutexGuard<'_, Held> {
    count.held.lock().unwrap_or_else(PoisonError::into_inner)
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
        // The second client takes what the first one left. Their shares become equal as the first releases its permits.
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
        let held = lock(&limit.count);
        assert!(held.total == 0 && held.by_account.is_empty(), "{held:?}");
    }

    #[test]
    fn a_new_client_may_take_everything_and_others_half_of_the_free_capacity() {
        let limit = limit(10);
        let all = limit.acquire(1, 10).unwrap();
        assert!(limit.acquire(2, 1).is_err() && limit.acquire(1, 1).is_err());
        drop(all);
        let _some = limit.acquire(1, 4).unwrap();
        assert!(matches!(limit.acquire(1, 4), Err(Exceeded::Client { held: 4 })));
        let _more = limit.acquire(1, 3).unwrap();
        assert!(matches!(limit.acquire(2, 4), Err(Exceeded::Server { held: 7 })));
        let _rest = limit.acquire(2, 3).unwrap();
        assert_eq!(lock(&limit.count).total, 10);
    }

    #[test]
    fn a_resized_permit_may_exceed_the_limit_until_it_is_dropped() {
        let limit = limit(100);
        let mut permit = limit.acquire(1, 25).unwrap();
        permit.resize(1000);
        assert_eq!(lock(&limit.count).total, 1000);
        assert!(limit.acquire(1, 1).is_err() && limit.acquire(2, 1).is_err());
        permit.resize(10);
        let held = limit.acquire(2, 90).unwrap();
        permit.resize(usize::MAX);
        assert_eq!(lock(&limit.count).total, u32::MAX);
        drop((permit, held));
        let held = lock(&limit.count);
        assert!(held.total == 0 && held.by_account.is_empty(), "{held:?}");
    }

    /// Fills the limit with requests of one size. Their client is then rejected early, and no amount of any size would
    /// be admitted.
    #[test]
    fn a_client_is_rejected_early_only_if_nothing_would_be_admitted() {
        for size in 1..200 {
            let limit = limit(16384);
            let permits: Vec<Permit> = std::iter::from_fn(|| limit.acquire(0, size).ok()).collect();
            let held = lock(&limit.count);
            assert!(limit.check(&held, 0, 1).is_err(), "{} requests of {size} are held", permits.len());
            assert!((1..=16384).all(|amount| limit.check(&held, 0, amount).is_err()));
            assert!(limit.check(&held, 1, 1000).is_ok(), "another client is admitted");
            drop(held);
        }
    }
}
