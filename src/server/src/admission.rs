//! Admission: bounds on requests, bytes and tokens in flight, of which no client takes all.
//!
//! A request takes a place among the requests before its body is read, room for the body's bytes as they come and until they
//! are parsed, and room for its tokens once they are counted. A client that holds nothing may take whatever is free. One that
//! holds something may take half of what is free, and nothing once it holds [`SHARE`] times as much as is free: dynamic
//! thresholds (Choudhury and Hahne, IEEE/ACM Transactions on Networking 1998). So one client alone has about 8/9 of the room, two have about 8/17 each, and whoever comes next finds some.
//!
//! Whether a client may take any more at all does not depend on how much: those who may not are refused before a byte of the
//! body is read, and nobody who would have found room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::ServerConfig;
use crate::pressure::Pressure;
use crate::problem::{self, Failure};

/// What a client may hold, in units of what is free beside it.
const SHARE: u64 = 8;

/// What may be in flight. Clones share the bounds.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    requests: Bound,
    body_bytes: Bound,
    tokens: Bound,
    pressure: Arc<Pressure>,
}

/// A bound on something.
#[derive(Clone, Debug)]
struct Bound {
    unit: &'static str,
    limit: u32,
    room: Arc<Mutex<Room>>,
}

/// What is taken.
#[derive(Debug, Default)]
struct Room {
    held: u32,
    /// By account; nobody is here with none.
    by_account: HashMap<u64, u32>,
}

/// Room that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    room: Arc<Mutex<Room>>,
    account: u64,
    amount: u32,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// What there is no more of.
    pub(crate) unit: &'static str,
    /// How much of it is taken, by all or, if `for_others`, by the client.
    pub(crate) held: u32,
    pub(crate) limit: u32,
    /// Whether the rest is left to other clients.
    pub(crate) for_others: bool,
}

impl Admission {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let bound = |unit, limit| Bound { unit, limit, room: Arc::default() };
        Self {
            requests: bound("requests", config.max_waiting_requests),
            body_bytes: bound("body bytes", config.body_room()),
            tokens: bound("tokens", config.max_waiting_tokens),
            pressure: Arc::new(Pressure::new(Instant::now())),
        }
    }

    /// Requests in flight, those whose bodies are being read among them.
    pub(crate) fn requests(&self) -> u32 {
        lock(&self.requests.room).held
    }

    /// Bytes of bodies that are being read or parsed.
    pub(crate) fn body_bytes(&self) -> u32 {
        lock(&self.body_bytes.room).held
    }

    /// Tokens in flight.
    pub(crate) fn tokens(&self) -> u32 {
        lock(&self.tokens.room).held
    }

    /// A request that could never fit is told to be split.
    pub(crate) fn check(&self, tokens: usize) -> Result<u32, Failure> {
        match u32::try_from(tokens) {
            Ok(tokens) if tokens <= self.tokens.limit => Ok(tokens),
            _ => Err(problem::request_too_large(tokens, self.tokens.limit)),
        }
    }

    /// Takes a place for a client's request, which is still to be read.
    pub(crate) fn enter(&self, account: u64) -> Result<Permit, Failure> {
        self.requests.take(account, 1).map_err(|full| self.refuse(full))
    }

    /// Room for a client's body, of which nothing has come.
    pub(crate) fn body(&self, account: u64) -> Permit {
        self.body_bytes.nothing(account)
    }

    /// More of the body came.
    pub(crate) fn grow(&self, body: &mut Permit, bytes: usize) -> Result<(), Failure> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.body_bytes.grow(body, bytes).map_err(|full| self.refuse(full))
    }

    /// Refuses a client who may not take a single token now.
    pub(crate) fn look(&self, account: u64) -> Result<(), Failure> {
        self.tokens.find(&lock(&self.tokens.room), account, 1).map_err(|full| self.refuse(full))
    }

    /// Takes room for a client's tokens now, or not at all: waiting is the client's part.
    pub(crate) fn admit(&self, account: u64, tokens: u32) -> Result<Permit, Failure> {
        let permit = self.tokens.take(account, tokens).map_err(|full| self.refuse(full))?;
        self.pressure.taken(Instant::now());
        Ok(permit)
    }

    fn refuse(&self, full: Full) -> Failure {
        problem::overloaded(full, self.pressure.refused(Instant::now()))
    }
}

impl Bound {
    /// Whether there is room for so much more of a client's. If there is none for 1, there is none for anything.
    fn find(&self, room: &Room, account: u64, amount: u32) -> Result<(), Full> {
        let &Self { unit, limit, .. } = self;
        let free = limit - room.held;
        if amount > free {
            return Err(Full { unit, held: room.held, limit, for_others: false });
        }
        match room.by_account.get(&account) {
            Some(&own) if amount > free / 2 || u64::from(own) >= SHARE * u64::from(free) => {
                Err(Full { unit, held: own, limit, for_others: true })
            }
            _ => Ok(()),
        }
    }

    fn take(&self, account: u64, amount: u32) -> Result<Permit, Full> {
        let mut permit = self.nothing(account);
        self.grow(&mut permit, amount)?;
        Ok(permit)
    }

    fn nothing(&self, account: u64) -> Permit {
        Permit { room: Arc::clone(&self.room), account, amount: 0 }
    }

    fn grow(&self, permit: &mut Permit, amount: u32) -> Result<(), Full> {
        let mut room = lock(&self.room);
        self.find(&room, permit.account, amount)?;
        if amount > 0 {
            room.held += amount;
            *room.by_account.entry(permit.account).or_default() += amount;
            permit.amount += amount;
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut room = lock(&self.room);
        room.held -= self.amount;
        if let Some(own) = room.by_account.get_mut(&self.account) {
            *own -= self.amount;
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

    fn bound(limit: u32) -> Bound {
        Bound { unit: "tokens", limit, room: Arc::default() }
    }

    #[test]
    fn one_client_leaves_room_for_the_next() {
        let bound = bound(900);
        let fill = |account: u64| -> Vec<Permit> { std::iter::from_fn(|| bound.take(account, 1).ok()).collect() };
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
        let room = lock(&bound.room);
        assert!(room.held == 0 && room.by_account.is_empty(), "{room:?}");
    }

    #[test]
    fn whoever_holds_nothing_may_take_all_and_others_half_of_what_is_left() {
        let bound = bound(10);
        let all = bound.take(1, 10).unwrap();
        assert!(bound.take(2, 1).is_err() && bound.take(1, 1).is_err());
        drop(all);
        let _some = bound.take(1, 4).unwrap();
        assert!(bound.take(1, 4).unwrap_err().for_others);
        let _more = bound.take(1, 3).unwrap();
        assert!(!bound.take(2, 4).unwrap_err().for_others);
        let _rest = bound.take(2, 3).unwrap();
        assert_eq!(lock(&bound.room).held, 10);
    }

    /// Requests of any size fill the room until their client is refused unread, but for what is less than one of them.
    #[test]
    fn who_is_refused_unread_would_find_no_room_and_who_is_not_finds_some() {
        for size in 1..200 {
            let bound = bound(16384);
            let held: Vec<Permit> = std::iter::from_fn(|| bound.take(0, size).ok()).collect();
            let room = lock(&bound.room);
            assert!(bound.find(&room, 0, 1).is_err(), "of {size}, {} are held", held.len());
            assert!((1..=16384).all(|amount| bound.find(&room, 0, amount).is_err()));
            assert!(bound.find(&room, 1, 1000).is_ok(), "others find room");
            drop(room);
        }
    }
}
