//! Tests of the limits that clients share.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

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
    let held = lock(&limit.held);
    assert!(held.total == 0 && held.by_account.is_empty(), "{held:?}");
}

/// Four clients take as much as they can, with the largest requests that are admitted or with small ones, and one
/// after another or in turns. The fifth still gets a fair part.
#[test]
fn four_greedy_clients_leave_capacity_for_a_fifth() {
    let total = 1 << 20;
    let largest = |limit: &SharedLimit, account| {
        let held = lock(&limit.held);
        held.max_amount(held.total, held.by_client(account))
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
        let free = total - lock(&limit.held).total;
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
        let held = lock(&limit.held);
        let is_rejected = held.check(0, 1).is_err();
        assert_eq!(is_rejected, (1..=16384).all(|amount| held.check(0, amount).is_err()));
        assert!(held.check(0, size).is_err(), "{} requests of {size} are held", permits.len());
        assert!(held.check(1, 1000).is_ok(), "another client is admitted");
        drop(held);
    }
}

#[test]
fn a_resized_permit_holds_at_most_a_quarter() {
    let limit = limit(100);
    let mut permit = limit.acquire(1, 20).unwrap();
    for (size, expected) in [(1000, 25), (10, 10), (usize::MAX, 25), (0, 0)] {
        permit.resize(size);
        assert_eq!(limit.held(), expected);
    }
    permit.resize(usize::MAX);
    drop(permit);
    assert_eq!(limit.held(), 0);
}

/// Returns the permit of a task that waits, if it has one.
fn poll(wait: Pin<&mut impl Future<Output = Permit>>) -> Option<Permit> {
    match wait.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => Some(permit),
        Poll::Pending => None,
    }
}

#[test]
fn tasks_of_an_account_are_admitted_in_order() {
    let limit = limit(90);
    let first = limit.acquire(1, 50).unwrap();
    let [mut large, mut small] = [30, 1].map(|amount| Box::pin(limit.wait(1, amount)));
    assert!(poll(large.as_mut()).is_none() && poll(small.as_mut()).is_none());
    let other = poll(pin!(limit.wait(2, 1))).expect("another account does not wait for this one");
    drop((other, first));
    let first = poll(large.as_mut()).unwrap();
    let second = poll(small.as_mut()).unwrap();
    drop((first, second));
    assert_eq!((limit.held(), lock(&limit.held).waiting.heads(0).count()), (0, 0));
}

#[test]
fn a_dropped_task_is_not_admitted() {
    let limit = limit(90);
    let first = limit.acquire(1, 60).unwrap();
    let [mut gone, mut admitted, mut last] = [30, 30, 1].map(|amount| Box::pin(limit.wait(1, amount)));
    for wait in [&mut gone, &mut admitted, &mut last] {
        assert!(poll(wait.as_mut()).is_none());
    }
    drop(gone);
    drop(first);
    // It has its permit, but has not taken it.
    drop(admitted);
    assert!(poll(last.as_mut()).is_some());
    assert_eq!((limit.held(), lock(&limit.held).waiting.heads(0).count()), (0, 0));
}

/// Two accounts take turns so that a quarter of the limit is never admissible for a third.
#[test]
fn a_large_part_is_not_overtaken_forever() {
    let limit = limit(1000);
    let mut held: Vec<Permit> = [1, 2].into_iter().flat_map(|account| fill(&limit, account, 10)).collect();
    let mut large = Box::pin(limit.wait(3, 250));
    assert!(poll(large.as_mut()).is_none());
    let mut overtaking = 0;
    let permit = loop {
        let account = held.remove(0).account();
        if let Some(permit) = poll(large.as_mut()) {
            break permit;
        }
        if let Some(permit) = poll(pin!(limit.wait(account, 10))) {
            held.push(permit);
            overtaking += 10;
        }
        assert!(!held.is_empty() && overtaking <= 1000, "{overtaking} units overtook the large part");
    };
    assert_eq!(overtaking, 1000);
    drop(permit);
}

/// An account that waits for itself does not delay others.
#[test]
fn an_account_that_holds_too_much_delays_nobody() {
    let limit = limit(90);
    let _unread = limit.acquire(1, 60).unwrap();
    let mut own = Box::pin(limit.wait(1, 22));
    assert!(poll(own.as_mut()).is_none());
    for _ in 0..100 {
        assert!(poll(pin!(limit.wait(2, 10))).is_some());
    }
    assert!(limit.acquire(2, 10).is_ok());
    assert!(poll(own.as_mut()).is_none());
}
