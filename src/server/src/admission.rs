//! Admission: a bound on the tokens of all requests in flight, of which no client takes all.
//!
//! Beyond its first request, a client may hold at most [`SHARE`] times what is left free: dynamic thresholds (Choudhury and
//! Hahne, IEEE/ACM Transactions on Networking 1998). One client alone has 8/9 of the room, two have 8/17 each, and whoever
//! comes next finds some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::problem::{self, Failure};

/// What a client may hold, in units of what is free beside it.
const SHARE: u64 = 8;

/// Tokens that may be in flight. Clones share the bound.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    limit: u32,
    room: Arc<Mutex<Room>>,
}

/// Tokens in flight.
#[derive(Debug, Default)]
struct Room {
    held: u32,
    /// By account; nobody is here with none.
    by_account: HashMap<u64, u32>,
}

/// A request's tokens in flight, until dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    room: Arc<Mutex<Room>>,
    account: u64,
    tokens: u32,
}

impl Admission {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, room: Arc::default() }
    }

    /// Tokens in flight.
    pub(crate) fn held(&self) -> u32 {
        lock(&self.room).held
    }

    /// A request that could never fit is told to be split.
    pub(crate) fn check(&self, tokens: usize) -> Result<u32, Failure> {
        match u32::try_from(tokens) {
            Ok(tokens) if tokens <= self.limit => Ok(tokens),
            _ => Err(problem::request_too_large(tokens, self.limit)),
        }
    }

    /// Takes room for a client's request now, or not at all: waiting is the client's part.
    pub(crate) fn admit(&self, account: u64, tokens: u32) -> Result<Permit, Failure> {
        let mut room = lock(&self.room);
        let own = room.by_account.get(&account).copied().unwrap_or(0);
        let Some(free) = (self.limit - room.held).checked_sub(tokens) else {
            return Err(problem::overloaded(tokens, room.held, self.limit));
        };
        if own > 0 && u64::from(own) + u64::from(tokens) > SHARE * u64::from(free) {
            return Err(problem::over_share(tokens, own, self.limit));
        }
        if tokens > 0 {
            room.held += tokens;
            *room.by_account.entry(account).or_default() += tokens;
        }
        Ok(Permit { room: Arc::clone(&self.room), account, tokens })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut room = lock(&self.room);
        room.held -= self.tokens;
        if let Some(own) = room.by_account.get_mut(&self.account) {
            *own -= self.tokens;
            if *own == 0 {
                room.by_account.remove(&self.account);
            }
        }
    }
}

/// Counts are whole after each step, so a panic elsewhere leaves them right.
fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn one_client_leaves_room_for_the_next() {
        let admission = Admission::new(900);
        let fill = |account: u64| -> Vec<Permit> { std::iter::from_fn(|| admission.admit(account, 1).ok()).collect() };
        let mut held = BTreeMap::from([(1, fill(1))]);
        assert_eq!(held[&1].len(), 800);
        // The second finds what the first left, and they come to the same shares as the first lets go.
        held.insert(2, fill(2));
        assert!((80..=90).contains(&held[&2].len()), "{}", held[&2].len());
        for _ in 0..900 {
            for account in [1, 2] {
                held.get_mut(&account).unwrap().pop();
                let more = fill(account);
                held.get_mut(&account).unwrap().extend(more);
            }
        }
        let shares = [held[&1].len(), held[&2].len()];
        assert!(shares.iter().all(|share| (400..=450).contains(share)), "{shares:?}");
        drop(held);
        assert_eq!(admission.held(), 0);
        assert!(lock(&admission.room).by_account.is_empty());
    }

    #[test]
    fn whoever_holds_nothing_may_take_all() {
        let admission = Admission::new(10);
        let all = admission.admit(1, 10).unwrap();
        assert!(admission.admit(2, 1).is_err() && admission.admit(1, 1).is_err());
        drop(all);
        let _some = admission.admit(1, 5).unwrap();
        let _rest = admission.admit(2, 5).unwrap();
        assert_eq!(admission.held(), 10);
    }
}
