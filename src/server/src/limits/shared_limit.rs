//! `SharedLimit`: a limit on one resource, shared fairly among clients.
//!
//! After it is admitted, a client holds at most [`MAX_HELD_TO_FREE`] times the capacity that is still free. This is a
//! dynamic threshold (Choudhury and Hahne, IEEE/ACM Transactions on Networking 1998). However greedy they are, k clients
//! leave at least 3^-k of the capacity, so a new client always finds some. If they release what they hold, they end up
//! with equal shares: a single client with up to 2/3 of the capacity, two with 2/5 each.
//!
//! There is one exception for large requests: while nobody holds anything, a client may take everything but a reserve,
//! which no request may take (`max_request`). So every request that is smaller is admitted at the latest when the others
//! have released what they hold.
//!
//! A client that may not take one more unit may not take any larger amount either. The server can therefore reject such
//! a client before it reads the body, and it never rejects a request early that it could have admitted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::config::max_request;

/// The maximum amount that a client may hold, as a multiple of the capacity that it leaves free.
const MAX_HELD_TO_FREE: u64 = 2;

/// A limit on one resource, and the amount that is held.
#[derive(Clone, Debug)]
pub(crate) struct SharedLimit {
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

/// The reason why a limit rejects a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    /// Too little free capacity for the request.
    Server { held: u32 },
    /// Too much capacity held by the client itself: this request would leave too little to other clients.
    Client { held: u32 },
}

impl SharedLimit {
    pub(crate) fn new(unit: &'static str, limit: u32) -> Self {
        Self { unit, limit, count: Arc::default() }
    }

    pub(crate) fn unit(&self) -> &'static str {
        self.unit
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the amount that all clients hold.
    pub(crate) fn held(&self) -> u32 {
        lock(&self.count).total
    }

    /// Checks whether a client may take this amount. A client that may not take 1 may not take any amount.
    pub(crate) fn check(&self, account: u64, amount: u32) -> Result<(), Exceeded> {
        self.check_held(&lock(&self.count), account, amount)
    }

    fn check_held(&self, held: &Held, account: u64, amount: u32) -> Result<(), Exceeded> {
        // Resized permits may exceed the limit.
        let free = self.limit.saturating_sub(held.total);
        let by_client = held.by_account.get(&account).copied().unwrap_or(0);
        if amount <= self.max_amount(held.total, by_client).min(free) {
            Ok(())
        } else if amount > free || by_client == 0 {
            Err(Exceeded::Server { held: held.total })
        } else {
            Err(Exceeded::Client { held: by_client })
        }
    }

    /// Returns the greatest amount that a client may take if it holds `by_client` of the `total` amount that is held.
    /// This is `x` in `by_client + x = MAX_HELD_TO_FREE * (limit - total - x)`, rounded up, so that a client that holds
    /// nothing may take the last unit.
    fn max_amount(&self, total: u32, by_client: u32) -> u32 {
        if total == 0 {
            return max_request(self.limit);
        }
        let share = (MAX_HELD_TO_FREE * u64::from(self.limit.saturating_sub(total))).saturating_sub(by_client.into());
        u32::try_from(share.div_ceil(MAX_HELD_TO_FREE + 1)).unwrap_or(u32::MAX)
    }

    pub(crate) fn acquire(&self, account: u64, amount: u32) -> Result<Permit, Exceeded> {
        let mut permit = self.empty_permit(account);
        self.grow(&mut permit, amount)?;
        Ok(permit)
    }

    /// Acquires the amount as soon as the account may have it.
    pub(crate) async fn wait(&self, account: u64, amount: u32) -> Permit {
        loop {
            let released = self.count.released.notified();
            if let Ok(permit) = self.acquire(account, amount) {
                return permit;
            }
            released.await;
        }
    }

    pub(crate) fn empty_permit(&self, account: u64) -> Permit {
        Permit { count: Arc::clone(&self.count), account, amount: 0 }
    }

    pub(crate) fn grow(&self, permit: &mut Permit, amount: u32) -> Result<(), Exceeded> {
        if amount == 0 {
            return Ok(());
        }
        let mut held = lock(&self.count);
        self.check_held(&held, permit.account, amount)?;
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

    fn limit(limit: u32) -> SharedLimit {
        SharedLimit::new("tokens", limit)
    }

    /// Takes requests of one size until the limit rejects them.
    fn fill(limit: &SharedLimit, account: u64, size: u32) -> Vec<Permit> {
        std::iter::from_fn(|| limit.acquire(account, size).ok()).collect()
    }

    #[test]
    fn shares_become_equal() {
        let limit = limit(900);
        let mut permits = BTreeMap::from([(1, fill(&limit, 1, 1))]);
        assert_eq!(permits[&1].len(), 600);
        // The second client takes most of what the first one left, and more as the first releases its permits.
        permits.insert(2, fill(&limit, 2, 1));
        assert_eq!(permits[&2].len(), 200);
        for _ in 0..900 {
            for account in [1, 2] {
                permits.get_mut(&account).unwrap().pop();
                let more = fill(&limit, account, 1);
                permits.get_mut(&account).unwrap().extend(more);
            }
        }
        let shares = [permits[&1].len(), permits[&2].len()];
        assert!(shares.iter().all(|share| (350..=370).contains(share)), "{shares:?}");
        drop(permits);
        let held = lock(&limit.count);
        assert!(held.total == 0 && held.by_account.is_empty(), "{held:?}");
    }

    /// Four clients take as much as they can, with the largest requests that are admitted or with small ones, and one
    /// after another or in turns. The fifth still gets a fair part.
    #[test]
    fn four_greedy_clients_leave_capacity_for_a_fifth() {
        let total = 1 << 20;
        let largest = |limit: &SharedLimit, account| {
            let held = lock(&limit.count);
            limit.max_amount(held.total, held.by_account.get(&account).copied().unwrap_or(0))
        };
        for (rounds, size) in [(1, Some(1)), (1, None), (20, None), (20, Some(1000)), (1, Some(30_000))] {
            let limit = limit(total);
            // Another request is in flight, so nobody is alone.
            let _other = limit.acquire(9, 1).unwrap();
            let mut permits = Vec::new();
            for _ in 0..rounds {
                for account in 1..=4 {
                    match size {
                        Some(size) => permits.extend(fill(&limit, account, size)),
                        None => permits.extend(limit.acquire(account, largest(&limit, account)).ok()),
                    }
                }
            }
            let free = total - lock(&limit.count).total;
            assert!(free >= total / 82, "{rounds} rounds of {size:?} leave {free}");
            assert!(limit.acquire(5, total / 200).is_ok());
        }
    }

    #[test]
    fn a_request_that_needs_most_of_the_capacity_is_admitted_when_nobody_holds_any() {
        let limit = limit(1600);
        assert!(limit.acquire(1, 1501).is_err());
        let all = limit.acquire(1, 1500).unwrap();
        // The reserve remains for others.
        assert!(limit.acquire(1, 1).is_err());
        let _other = limit.acquire(2, 60).unwrap();
        drop(all);
        assert!(matches!(limit.acquire(1, 1500), Err(Exceeded::Server { held: 60 })), "another client holds something");
        assert!(limit.acquire(1, 1000).is_ok());
        assert!(limit.acquire(2, 1).is_ok());
    }

    #[test]
    fn the_last_unit_is_for_a_client_that_holds_nothing() {
        let limit = limit(10);
        let some = limit.acquire(1, 7).unwrap();
        assert!(matches!(limit.acquire(1, 1), Err(Exceeded::Client { held: 7 })));
        assert!(matches!(limit.acquire(2, 4), Err(Exceeded::Server { held: 7 })));
        assert!(matches!(limit.acquire(2, 3), Err(Exceeded::Server { held: 7 })));
        let _more = limit.acquire(2, 2).unwrap();
        let _last = limit.acquire(3, 1).unwrap();
        assert!(matches!(limit.acquire(4, 1), Err(Exceeded::Server { held: 10 })));
        drop(some);
        assert!(limit.acquire(4, 1).is_ok());
    }

    /// Fills the limit with requests of one size. Their client is then rejected early only if no amount of any size
    /// would be admitted.
    #[test]
    fn a_client_is_rejected_early_only_if_nothing_would_be_admitted() {
        for size in 1..200 {
            let limit = limit(16384);
            let permits = fill(&limit, 0, size);
            let held = lock(&limit.count);
            let is_rejected = limit.check_held(&held, 0, 1).is_err();
            assert_eq!(is_rejected, (1..=16384).all(|amount| limit.check_held(&held, 0, amount).is_err()));
            assert!(limit.check_held(&held, 0, size).is_err(), "{} requests of {size} are held", permits.len());
            assert!(limit.check_held(&held, 1, 1000).is_ok(), "another client is admitted");
            drop(held);
        }
    }

    #[test]
    fn a_resized_permit_may_exceed_the_limit_until_it_is_dropped() {
        let limit = limit(100);
        let mut permit = limit.acquire(1, 25).unwrap();
        permit.resize(1000);
        assert_eq!(limit.held(), 1000);
        assert!(limit.acquire(1, 1).is_err() && limit.acquire(2, 1).is_err());
        permit.resize(10);
        let held = limit.acquire(2, 50).unwrap();
        permit.resize(usize::MAX);
        assert_eq!(limit.held(), u32::MAX);
        drop((permit, held));
        assert_eq!(limit.held(), 0);
    }
}
