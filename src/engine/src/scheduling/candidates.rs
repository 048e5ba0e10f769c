//! The order in which a forward pass tries to start waiting queries: overdue queries first, then the others by tag.
//!
//! A query that cannot start is skipped until the next pass. Whether later queries of its client may start before it
//! depends on the reason.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::scheduling::client_queue::WaitingQuery;
use crate::scheduling::queue::{Queue, QueueKey, Tag};

/// Maximum number of overdue queries that a pass skips before it tries the others.
const MAX_OVERDUE_TRIED: usize = 64;

/// Maximum number of overdue queries that a pass looks at, whether or not it tries them.
const MAX_OVERDUE_SEEN: usize = 4096;

/// A waiting query that is to be tried next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) key: QueueKey,
    /// `true` if the query is tried before its turn, because it is overdue.
    pub(crate) before_turn: bool,
    /// `true` if the query was found among the overdue ones.
    overdue: bool,
}

impl Candidate {
    /// Returns a query that is tried in its turn.
    pub(crate) fn in_turn(key: QueueKey) -> Self {
        Self { key, before_turn: false, overdue: false }
    }
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
    /// The last overdue query that was looked at, and the time since which it has waited.
    last_overdue: Option<(u64, QueueKey)>,
    /// Number of overdue queries that were looked at.
    overdue_seen: usize,
    /// Number of overdue queries that were skipped. After [`MAX_OVERDUE_TRIED`], the others are tried.
    overdue_skipped: usize,
    /// `true` if overdue queries that generate are not tried.
    only_scoring: bool,
}

impl SkippedQueries {
    /// Returns the state in which all queries can be tried again.
    pub(crate) fn restart(&self) -> Self {
        Self { only_scoring: self.only_scoring, overdue_seen: self.overdue_seen, ..Self::default() }
    }

    /// Replaces a query that has started by the one to try after it; see [`Queue::successor`].
    pub(crate) fn replace(&mut self, started: QueueKey, successor: Option<QueueKey>) {
        self.successors.remove(&started);
        self.successors.extend(successor);
    }

    /// Omits overdue queries that generate from now on.
    pub(crate) fn omit_generations(&mut self) {
        self.only_scoring = true;
    }
}

impl Queue {
    /// Returns the query to try next, omitting those skipped in this pass. Beside a running query whose next chunk has
    /// the tag `running`, returns only overdue queries and those whose tags are not greater.
    pub(crate) fn next(&self, skipped: &mut SkippedQueries, running: Option<Tag>) -> Option<Candidate> {
        let in_turn = self.next_in_turn(skipped).filter(|key| running.is_none_or(|running| key.tag() <= running));
        match self.next_overdue(skipped) {
            Some(key) => Some(Candidate { key, before_turn: in_turn != Some(key), overdue: true }),
            None => in_turn.map(Candidate::in_turn),
        }
    }

    /// Returns the first query of those that were not skipped in this pass.
    fn next_in_turn(&self, skipped: &SkippedQueries) -> Option<QueueKey> {
        let after = skipped.last_head.map_or(Bound::Unbounded, Bound::Excluded);
        let head = self.heads.range((after, Bound::Unbounded)).find(|&key| !skipped.overdue.contains(key));
        head.into_iter().chain(skipped.successors.first()).min().copied()
    }

    /// Returns the overdue query that has waited longest of those that can still be tried in this pass. The pass does
    /// not look at it or at those before it again.
    fn next_overdue(&self, skipped: &mut SkippedQueries) -> Option<QueueKey> {
        if self.overdue_credit <= 0 || skipped.overdue_skipped >= MAX_OVERDUE_TRIED {
            return None;
        }
        let after = skipped.last_overdue.map_or(Bound::Unbounded, Bound::Excluded);
        let overdue = self.by_wait.range((after, Bound::Unbounded));
        for &(since, key) in overdue.take(MAX_OVERDUE_SEEN - skipped.overdue_seen) {
            if !self.is_overdue_since(since) {
                break;
            }
            skipped.last_overdue = Some((since, key));
            skipped.overdue_seen += 1;
            let is_omitted = skipped.only_scoring && self.get(key).is_some_and(WaitingQuery::generates);
            if skipped.last_head < Some(key) && !is_omitted {
                return Some(key);
            }
        }
        None
    }

    /// Skips a query until the next forward pass, and tries some of its successors instead.
    pub(crate) fn skip(&self, candidate: Candidate, skipped: &mut SkippedQueries, successors: Successors) {
        let key = candidate.key;
        skipped.successors.remove(&key);
        if candidate.overdue {
            skipped.overdue.insert(key);
            skipped.overdue_skipped += 1;
        } else if self.heads.contains(&key) {
            skipped.last_head = skipped.last_head.max(Some(key));
        }
        skipped.successors.extend(self.after(key, successors));
    }

    /// Returns the query to try after this one has started, unless its client's first query is to be tried then.
    pub(crate) fn successor(&self, key: QueueKey) -> Option<QueueKey> {
        if self.heads.contains(&key) { None } else { self.after(key, Successors::All) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Sampling;
    use crate::scheduling::job::Job;
    use crate::scorer::{Generation, PositionOptions, Query, SchedulingParams};

    fn push(queue: &mut Queue, scheduling: SchedulingParams, generates: bool) {
        let options = PositionOptions::default();
        let generation = Generation { max_tokens: 1, sampling: Sampling::GREEDY, stop: Vec::new(), options };
        let query = Query { scheduling, ..Query::new(vec![1, 2], 1) };
        queue.push(Job { id: queue.len() as u64, query, generation: generates.then(|| Box::new(generation)) });
    }

    /// A pass looks at each overdue query once, however many it omits and however many it tries.
    #[test]
    fn a_pass_looks_at_each_overdue_query_once() {
        let scoring = SchedulingParams { priority: 1, client: 0 };
        for (clients, has_scoring) in [(1000, false), (1000, true), (2 * MAX_OVERDUE_SEEN, false)] {
            let mut queue = Queue::new(1);
            for client in 0..clients as u64 {
                push(&mut queue, SchedulingParams { priority: 0, client }, true);
            }
            if has_scoring {
                push(&mut queue, scoring, false);
            }
            let (waiting, tag) = (queue.len(), Tag { priority: 0, virtual_time: 0 });
            queue.serve_in_turn(SchedulingParams { priority: 0, client: u64::MAX }, tag, 100);

            let mut skipped = SkippedQueries::default();
            let mut tried = Vec::new();
            while let Some(candidate) = queue.next(&mut skipped, None) {
                tried.push(candidate.key.scheduling());
                queue.skip(candidate, &mut skipped, Successors::Scoring);
                skipped.omit_generations();
            }
            assert_eq!(tried.len(), waiting, "each query is tried once");
            assert_eq!(skipped.overdue_seen, waiting.min(MAX_OVERDUE_SEEN));
            assert_eq!(tried[1] == scoring, has_scoring, "the overdue scoring query precedes the other generations");
        }
    }
}
