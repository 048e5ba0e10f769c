//! `SharedLimit`: a limit on one resource, shared fairly among clients.
//!
//! After its request is admitted, a client holds at most [`MAX_HELD_TO_FREE`] times the capacity that is still free.
//! This is a dynamic threshold (Choudhury and Hahne, IEEE/ACM Transactions on Networking 1998). However greedy they
//! are, k clients leave at least 3^-k of the capacity, so a new client always finds some. If they release what they
//! hold, they end up with equal shares: a single client with up to 2/3 of the capacity, two with 2/5 each.
//!
//! There is one exception for large requests: while nobody holds anything, a client may take everything but a reserve,
//! which no request may take (`max_request`). So any smaller request is admitted once the others have released their
//! capacity.
//!
//! Some tasks [wait](SharedLimit::wait) instead of being rejected. Those of one client are admitted in the order of
//! their arrival. Others may overtake a task until they have taken as much as the limit since it began to wait. From
//! then on, only clients that hold little are admitted before that task, except while it waits for its own client to
//! release capacity.
//!
//! A client that may not take one more unit may not take any larger amount either. The server can therefore reject such
//! a client before it reads the body, and it never rejects a request early that it could have admitted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::config::max_request;
use super::wait_queue::WaitQueue;

/// The maximum amount that a client may hold, as a multiple of the capacity that it leaves free.
const MAX_HELD_TO_FREE: u64 = 2;

/// The divisor of the limit for the maximum amount of a [resized](Permit::resize) permit.
const MAX_RESIZED_DIVISOR: u32 = 4;

/// The divisor of the limit for the amount that a client may hold while another one's task is to be admitted next.
const SMALL_DIVISOR: u32 = 256;

/// A limit on one resource, and the amount that is held. Clones share the amount.
#[derive(Clone, Debug)]
pub(crate) struct SharedLimit {
    unit: &'static str,
    limit: u32,
    held: Arc<Mutex<Held>>,
}

/// The held amount of a resource, in total and by account, and the tasks that wait for some of it.
#[derive(Debug, Default)]
struct Held {
    limit: u32,
    total: u32,
    /// Accounts that hold nothing have no entry.
    by_account: HashMap<u64, u32>,
    /// Total amount that all accounts have taken since the start.
    taken: u64,
    waiting: WaitQueue<Waiter>,
}

/// A task that waits.
#[derive(Debug)]
struct Waiter {
    amount: u32,
    /// Total amount that all accounts had taken when the wait began.
    taken_before: u64,
    sender: oneshot::Sender<Permit>,
}

/// Capacity that an account holds until the permit is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    held: Arc<Mutex<Held>>,
    account: u64,
    amount: u32,
}

/// A guard that removes a task from the queue when it is dropped.
struct Wait<'a> {
    limit: &'a SharedLimit,
    account: u64,
    number: u64,
}

/// The permits of tasks that no longer wait. Dropping a permit locks the limit, so they are sent without the lock.
type Admitted = Vec<(oneshot::Sender<Permit>, Permit)>;

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
        Self { unit, limit, held: Arc::new(Mutex::new(Held { limit, ..Held::default() })) }
    }

    pub(crate) fn unit(&self) -> &'static str {
        self.unit
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the amount for something of this size, which counts as at most a quarter of the limit.
    pub(crate) fn capped_amount(&self, size: usize) -> u32 {
        capped_amount(self.limit, size)
    }

    /// Returns the amount that all clients hold.
    pub(crate) fn held(&self) -> u32 {
        lock(&self.held).total
    }

    /// Checks whether a client may take this amount. A client that may not take 1 may not take any amount.
    pub(crate) fn check(&self, account: u64, amount: u32) -> Result<(), Exceeded> {
        lock(&self.held).check(account, amount)
    }

    pub(crate) fn acquire(&self, account: u64, amount: u32) -> Result<Permit, Exceeded> {
        let mut permit = self.empty_permit(account);
        self.grow(&mut permit, amount)?;
        Ok(permit)
    }

    /// Acquires the amount as soon as the account may have it, and earlier tasks of the account have theirs.
    pub(crate) async fn wait(&self, account: u64, amount: u32) -> Permit {
        let (sender, receiver) = oneshot::channel();
        let (_wait, admitted) = {
            let mut held = lock(&self.held);
            let waiter = Waiter { amount, taken_before: held.taken, sender };
            let number = held.waiting.push(account, waiter);
            (Wait { limit: self, account, number }, held.admit_waiting(&self.held))
        };
        send(admitted);
        // The sender is dropped only after it has sent the permit.
        receiver.await.unwrap_or_else(|_| self.empty_permit(account))
    }

    pub(crate) fn empty_permit(&self, account: u64) -> Permit {
        Permit { held: Arc::clone(&self.held), account, amount: 0 }
    }

    pub(crate) fn grow(&self, permit: &mut Permit, amount: u32) -> Result<(), Exceeded> {
        if amount == 0 {
            return Ok(());
        }
        let mut held = lock(&self.held);
        held.check(permit.account, amount)?;
        held.add(permit.account, amount);
        permit.amount += amount;
        Ok(())
    }
}

impl Held {
    /// Checks whether an account may take this amount now, before the tasks that wait.
    fn check(&self, account: u64, amount: u32) -> Result<(), Exceeded> {
        let may_be_first = self.is_small(account, amount)
            || !self.waiting.heads(0).any(|(_, account, waiter)| self.is_next(account, waiter));
        if may_be_first { self.check_capacity(account, amount) } else { Err(Exceeded::Server { held: self.total }) }
    }

    /// Returns whether an account would hold little with this additional amount.
    fn is_small(&self, account: u64, amount: u32) -> bool {
        self.by_client(account).saturating_add(amount) <= self.limit / SMALL_DIVISOR
    }

    fn check_capacity(&self, account: u64, amount: u32) -> Result<(), Exceeded> {
        // Resized permits may exceed the limit.
        let free = self.limit.saturating_sub(self.total);
        let by_client = self.by_client(account);
        if amount <= self.max_amount(self.total, by_client).min(free) {
            Ok(())
        } else if amount > free || by_client == 0 {
            Err(Exceeded::Server { held: self.total })
        } else {
            Err(Exceeded::Client { held: by_client })
        }
    }

    fn by_client(&self, account: u64) -> u32 {
        self.by_account.get(&account).copied().unwrap_or(0)
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

    fn add(&mut self, account: u64, amount: u32) {
        if amount == 0 {
            return;
        }
        self.total += amount;
        self.taken += u64::from(amount);
        *self.by_account.entry(account).or_default() += amount;
    }

    fn remove(&mut self, account: u64, amount: u32) {
        self.total -= amount;
        if let Some(by_account) = self.by_account.get_mut(&account) {
            *by_account -= amount;
            if *by_account == 0 {
                self.by_account.remove(&account);
            }
        }
    }

    /// Returns `true` if nobody may be admitted before this task: others have overtaken it enough, and it waits for
    /// them.
    fn is_next(&self, account: u64, waiter: &Waiter) -> bool {
        let by_client = self.by_client(account);
        self.taken - waiter.taken_before >= u64::from(self.limit)
            && waiter.amount <= self.max_amount(by_client, by_client)
    }

    /// Returns the first task, from this number on, that is the first of its account: its number, account and amount,
    /// and whether it is [next](Self::is_next).
    fn first_waiting(&self, from: u64) -> Option<(u64, u64, u32, bool)> {
        let (number, account, waiter) = self.waiting.heads(from).next()?;
        Some((number, account, waiter.amount, self.is_next(account, waiter)))
    }

    /// Admits the tasks that wait and may have their amounts, each account's in order.
    fn admit_waiting(&mut self, shared: &Arc<Mutex<Self>>) -> Admitted {
        let (mut admitted, mut from, mut only_small) = (Vec::new(), 0, false);
        while let Some((number, account, amount, is_next)) = self.first_waiting(from) {
            if self.total >= self.limit {
                break;
            }
            from = number + 1;
            if only_small && !self.is_small(account, amount) {
                continue;
            }
            if self.check_capacity(account, amount).is_err() {
                only_small |= is_next;
            } else if let Some(waiter) = self.waiting.remove(account, number) {
                self.add(account, amount);
                admitted.push((waiter.sender, Permit { held: Arc::clone(shared), account, amount }));
            }
        }
        admitted
    }
}

/// Sends permits to their tasks. A permit whose task was dropped is released.
fn send(admitted: Admitted) {
    for (sender, permit) in admitted {
        let _ = sender.send(permit);
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut held = lock(&self.limit.held);
        let admitted = match held.waiting.remove(self.account, self.number) {
            Some(_) => held.admit_waiting(&self.limit.held),
            None => return,
        };
        drop(held);
        send(admitted);
    }
}

impl Permit {
    /// Returns the account that holds the capacity.
    pub(crate) fn account(&self) -> u64 {
        self.account
    }

    /// Changes the amount to that of something of this size, which counts as at most a quarter of the limit, whether
    /// there is capacity or not.
    pub(crate) fn resize(&mut self, size: usize) {
        let mut held = lock(&self.held);
        let amount = capped_amount(held.limit, size);
        let more = amount.saturating_sub(self.amount).min(u32::MAX - held.total);
        held.add(self.account, more);
        drop(held);
        self.amount += more;
        self.shrink(amount as usize);
    }

    /// Releases all but this amount.
    pub(crate) fn shrink(&mut self, amount: usize) {
        let released = self.amount.saturating_sub(u32::try_from(amount).unwrap_or(u32::MAX));
        if released == 0 {
            return;
        }
        let mut held = lock(&self.held);
        held.remove(self.account, released);
        self.amount -= released;
        let admitted = held.admit_waiting(&self.held);
        drop(held);
        send(admitted);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

fn capped_amount(limit: u32, size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX).min(limit / MAX_RESIZED_DIVISOR)
}

/// Locks the amounts. Every update leaves them consistent, so a panic while the lock is held does no harm.
fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
