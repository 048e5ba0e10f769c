//! The order in which a forward pass tries to start waiting queries: overdue queries first, then the others by tag.
//!
//! A query that cannot start is skipped until the next pass. Whether later queries of its client may start before it
//! depends on the reason.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::scheduling::queue::{Queue, QueueKey, Tag};

/// Maximum number of overdue queries that a pass skips before it tries the others.
const MAX_OVERDUE_TRIED: usize = 64;

/// A waiting query that is to be tried next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) key: QueueKey,
    /// `true` if the query is tried before its turn, because it is overdue.
    pub(crate) before_turn: bool,
}

/// The queries of the same client that may start in a pass before one that was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Successors {
    All,
    /// Those that do not generate.
    Scoring,
    None,
}

/// The queries that were tried for the current forward pass and must wait for a later pass.
#[derive(Debug, Default)]
pub(crate) struct SkippedQueries {
    /// The last of the skipped queries that are the first of their clients.
    last_head: Option<QueueKey>,
    /// The queries that are next after a skipped query of the same client.
    successors: BTreeSet<QueueKey>,
    /// The overdue queries that were tried before their turn.
    overdue: BTreeSet<QueueKey>,
    /// The last of them in the order in which overdue queries are tried.
    last_overdue: Option<(u64, QueueKey)>,
    /// Number of overdue queries that can still be skipped before the others are tried.
    overdue_skipped: usize,
    /// `true` if overdue queries that generate are not tried.
    only_scoring: bool,
}

impl SkippedQueries {
    /// Returns the state in which all queries can be tried again.
    pub(crate) fn restart(&self) -> Self {
        Self { only_scoring: self.only_scoring, ..Self::default() }
    }

    /// Omits overdue queries that generate from now on.
    pub(crate) fn omit_generations(&mut self) {
        self.only_scoring = true;
    }
}

impl Queue {
    /// Returns the query to try next, omitting those skipped in this pass. If the next chunk of a running query has the
    /// tag `running`, only overdue queries and those with a tag that is not greater are returned: at the same tag,
    /// a query that has yet to start is first.
    pub(crate) fn next(&self, skipped: &mut SkippedQueries, running: Option<Tag>) -> Option<Candidate> {
        let in_turn = self.next_in_turn(skipped).filter(|key| running.is_none_or(|running| key.tag() <= running));
        match self.next_overdue(skipped) {
            Some((_, key)) => Some(Candidate { key, before_turn: in_turn != Some(key) }),
            None => in_turn.map(|key| Candidate { key, before_turn: false }),
        }
    }

    /// Returns the first query of those that were not skipped in this pass.
    fn next_in_turn(&self, skipped: &mut SkippedQueries) -> Option<QueueKey> {
        // A successor may have left the queue in this pass.
        while let Some(&key) = skipped.successors.first()
            && self.get(key).is_none()
        {
            skipped.successors.remove(&key);
            skipped.successors.extend(self.after(key, Successors::All));
        }
        let after = skipped.last_head.map_or(Bound::Unbounded, Bound::Excluded);
        let head = self.heads.range((after, Bound::Unbounded)).find(|&key| !skipped.overdue.contains(key));
        head.into_iter().chain(skipped.successors.first()).min().copied()
    }

    /// Returns the overdue query that has waited longest of those that were not tried in this pass, and the time since
    /// which it has waited.
    fn next_overdue(&self, skipped: &SkippedQueries) -> Option<(u64, QueueKey)> {
        if self.overdue_credit <= 0 || skipped.overdue_skipped >= MAX_OVERDUE_TRIED {
            return None;
        }
        let after = skipped.last_overdue.map_or(Bound::Unbounded, Bound::Excluded);
        let mut overdue =
            self.by_wait.range((after, Bound::Unbounded)).take_while(|&&(since, _)| self.is_overdue_since(since));
        let is_omitted = |key| skipped.only_scoring && self.get(key).is_some_and(|waiting| waiting.generates());
        overdue.find(|&&(_, key)| skipped.last_head < Some(key) && !is_omitted(key)).copied()
    }

    /// Skips a query until the next forward pass, and tries some of its successors instead.
    pub(crate) fn skip(&self, key: QueueKey, skipped: &mut SkippedQueries, successors: Successors) {
        skipped.successors.remove(&key);
        match self.next_overdue(skipped) {
            Some(overdue) if overdue.1 == key => {
                skipped.overdue.insert(key);
                skipped.last_overdue = Some(overdue);
                skipped.overdue_skipped += 1;
            }
            _ if self.heads.contains(&key) => skipped.last_head = skipped.last_head.max(Some(key)),
            _ => {}
        }
        skipped.successors.extend(self.after(key, successors));
    }

    /// Returns the next query of the same client and priority.
    fn after(&self, key: QueueKey, successors: Successors) -> Option<QueueKey> {
        if successors == Successors::None {
            return None;
        }
        let only_scoring = successors == Successors::Scoring;
        let next = self.client(key.scheduling())?.after(key.position(), only_scoring)?;
        Some(QueueKey::new(key.scheduling(), next))
    }
}
