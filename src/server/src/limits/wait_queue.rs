//! `WaitQueue`: the tasks that wait for a part of a limit, in the order of their arrival.
//!
//! The queue only keeps the order. `shared_limit` decides which tasks begin.

use std::collections::{BTreeMap, HashMap};

/// The tasks that wait, each with a value, by account. Each account has a queue of its own, because one account's task
/// may be admissible while those of another are not.
#[derive(Debug)]
pub(super) struct WaitQueue<T> {
    /// Each account's tasks, by number. Accounts without tasks have no entry.
    accounts: HashMap<u64, BTreeMap<u64, T>>,
    /// The account of each queue's first task, by the task's number.
    heads: BTreeMap<u64, u64>,
    next_number: u64,
}

impl<T> Default for WaitQueue<T> {
    fn default() -> Self {
        Self { accounts: HashMap::new(), heads: BTreeMap::new(), next_number: 0 }
    }
}

impl<T> WaitQueue<T> {
    /// Adds a task. Returns its number.
    pub(super) fn push(&mut self, account: u64, waiter: T) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let queue = self.accounts.entry(account).or_default();
        if queue.is_empty() {
            self.heads.insert(number, account);
        }
        queue.insert(number, waiter);
        number
    }

    /// Removes a task, if it still waits.
    pub(super) fn remove(&mut self, account: u64, number: u64) -> Option<T> {
        let queue = self.accounts.get_mut(&account)?;
        let waiter = queue.remove(&number)?;
        let next = queue.keys().next().copied();
        if self.heads.remove(&number).is_some()
            && let Some(next) = next
        {
            self.heads.insert(next, account);
        }
        if next.is_none() {
            self.accounts.remove(&account);
        }
        Some(waiter)
    }

    /// Returns the first tasks of the accounts, beginning with the task `from`: for each, its number, its account and
    /// the task itself.
    pub(super) fn heads(&self, from: u64) -> impl Iterator<Item = (u64, u64, &T)> {
        self.heads.range(from..).filter_map(|(&number, &account)| {
            let waiter = self.accounts.get(&account)?.get(&number)?;
            Some((number, account, waiter))
        })
    }
}
