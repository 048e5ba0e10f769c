//! The queue of waiting queries, which decides which query runs next.
//!
//! Smaller priorities run sooner. Within a priority, clients take turns by tokens: queries run in the order in which
//! they would start if the engine served all clients at the same rate (start-time fair queueing: Goyal, Vin and Cheng,
//! SIGCOMM 1996). To prevent starvation, the query that has waited longest is tried first once [`STARVATION_LIMIT`]
//! others have overtaken it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use crate::scheduling::job::{Job, QueryId};
use crate::scorer::SchedulingParams;

/// Number of queries that may overtake the query that has waited longest.
const STARVATION_LIMIT: usize = 16;

/// A position in the queue; smaller keys run sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    priority: i32,
    /// The client's virtual time at which the query starts.
    virtual_start: u64,
    /// Number of earlier submissions, which makes every key unique.
    arrival: u64,
}

/// A waiting query's dependency on a running query that computes its prefix. The dependency ends when `on` has
/// published `tokens` tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefixDependency {
    pub(crate) on: QueryId,
    pub(crate) tokens: usize,
}

/// A waiting query.
#[derive(Debug)]
pub(crate) struct WaitingQuery {
    pub(crate) job: Job,
    /// The query's current or most recent dependency; `None` if the query was never deferred.
    pub(crate) dependency: Option<PrefixDependency>,
}

/// The queries that were tried for the current forward pass and must wait for a later pass.
#[derive(Debug, Default)]
pub(crate) struct SkippedQueries {
    last: Option<QueueKey>,
    /// The query that has waited longest, if it was tried before the others.
    oldest: Option<QueueKey>,
    pub(crate) count: usize,
}

/// The state of one priority: its clients and the number of its waiting queries.
#[derive(Debug, Default)]
struct PriorityClass {
    /// The virtual start time of the last query that left the queue in its turn.
    clock: u64,
    /// The virtual span of each client's last query. A span that ends no later than `clock` no longer matters.
    last: HashMap<u64, VirtualSpan>,
    waiting: usize,
}

/// The virtual times at which a query starts and ends.
#[derive(Clone, Copy, Debug, Default)]
struct VirtualSpan {
    start: u64,
    end: u64,
}

impl VirtualSpan {
    /// Moves the span earlier by `tokens`. A token is the unit of virtual time.
    fn move_up(&mut self, tokens: u64) {
        self.start = self.start.saturating_sub(tokens);
        self.end = self.end.saturating_sub(tokens);
    }
}

/// The waiting queries, in the order in which they run.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<QueueKey, WaitingQuery>,
    /// The keys of `waiting` by arrival.
    by_arrival: BTreeMap<u64, QueueKey>,
    classes: HashMap<i32, PriorityClass>,
    next_arrival: u64,
    /// Number of queries that have overtaken the query that has waited longest.
    overtakes: usize,
}

impl Queue {
    /// Adds a query and charges its client for the query's maximum length in tokens.
    pub(crate) fn push(&mut self, job: Job) {
        let SchedulingParams { priority, client } = job.query.scheduling;
        let class = self.classes.entry(priority).or_default();
        let last = class.last.entry(client).or_default();
        let start = class.clock.max(last.end);
        *last = VirtualSpan { start, end: start.saturating_add(job.max_len() as u64) };
        class.waiting += 1;
        let key = QueueKey { priority, virtual_start: start, arrival: self.next_arrival };
        self.insert(key, WaitingQuery { job, dependency: None });
        self.next_arrival += 1;
    }

    fn insert(&mut self, key: QueueKey, waiting: WaitingQuery) {
        self.by_arrival.insert(key.arrival, key);
        self.waiting.insert(key, waiting);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the most urgent priority of all waiting queries.
    pub(crate) fn most_urgent(&self) -> Option<i32> {
        self.waiting.first_key_value().map(|(key, _)| key.priority)
    }

    /// Returns the query to try next, omitting those skipped in this pass.
    pub(crate) fn next(&self, skipped: &SkippedQueries) -> Option<QueueKey> {
        if let Some(oldest) = self.oldest()
            && self.is_overdue(oldest)
            && skipped.oldest != Some(oldest)
        {
            return Some(oldest);
        }
        let after = skipped.last.map_or(Bound::Unbounded, Bound::Excluded);
        self.waiting.range((after, Bound::Unbounded)).next().map(|(&key, _)| key)
    }

    /// Returns the query that has waited longest.
    fn oldest(&self) -> Option<QueueKey> {
        self.by_arrival.first_key_value().map(|(_, &key)| key)
    }

    /// Returns whether the query is overdue: it has waited longest, and `STARVATION_LIMIT` others have overtaken it.
    pub(crate) fn is_overdue(&self, key: QueueKey) -> bool {
        self.overtakes >= STARVATION_LIMIT && self.oldest() == Some(key)
    }

    /// Skips a query until the next forward pass.
    pub(crate) fn skip(&self, key: QueueKey, skipped: &mut SkippedQueries) {
        skipped.count += 1;
        if self.overtakes >= STARVATION_LIMIT && skipped.oldest.is_none() {
            skipped.oldest = Some(key);
        } else {
            skipped.last = Some(key);
        }
    }

    pub(crate) fn get(&self, key: QueueKey) -> Option<&WaitingQuery> {
        self.waiting.get(&key)
    }

    /// Makes a query wait until another query has computed the prefix that they share.
    pub(crate) fn defer(&mut self, key: QueueKey, dependency: PrefixDependency) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.dependency = Some(dependency);
        }
    }

    /// Removes a query from the queue to run it, and returns its job.
    pub(crate) fn take(&mut self, key: QueueKey) -> Option<Job> {
        let overdue = self.is_overdue(key);
        self.overtakes = if self.oldest() == Some(key) { 0 } else { self.overtakes + 1 };
        // An overdue query runs before its turn, so it does not advance the clock. Otherwise, new clients would start
        // behind all queries that still wait for their turn.
        if !overdue && let Some(class) = self.classes.get_mut(&key.priority) {
            class.clock = class.clock.max(key.virtual_start);
        }
        let job = self.waiting.remove(&key)?.job;
        self.forget(key);
        Some(job)
    }

    /// Removes cancelled queries and refunds their clients: the clients' later queries move up.
    pub(crate) fn cancel(&mut self, cancelled: &HashSet<QueryId>) {
        if !self.waiting.values().any(|waiting| cancelled.contains(&waiting.job.id)) {
            return;
        }
        let mut refunds: HashMap<(i32, u64), u64> = HashMap::new();
        for (key, waiting) in std::mem::take(&mut self.waiting) {
            let refund = refunds.entry((key.priority, waiting.job.query.scheduling.client)).or_default();
            if cancelled.contains(&waiting.job.id) {
                *refund += waiting.job.max_len() as u64;
                self.forget(key);
            } else {
                let virtual_start = key.virtual_start.saturating_sub(*refund);
                self.insert(QueueKey { virtual_start, ..key }, waiting);
            }
        }
        for ((priority, client), tokens) in refunds {
            if let Some(last) = self.last_of(SchedulingParams { priority, client }) {
                last.move_up(tokens);
            }
        }
    }

    /// Refunds a client for tokens that one of its queries was charged for but did not sample. The client's waiting
    /// queries keep their turns, so that they stay in order.
    pub(crate) fn refund(&mut self, scheduling: SchedulingParams, tokens: usize) {
        if let Some(last) = self.last_of(scheduling) {
            last.end = last.end.saturating_sub(tokens as u64).max(last.start);
        }
    }

    /// Returns the span of a client's last query.
    fn last_of(&mut self, SchedulingParams { priority, client }: SchedulingParams) -> Option<&mut VirtualSpan> {
        self.classes.get_mut(&priority)?.last.get_mut(&client)
    }

    /// Removes the remaining state of a query that was removed from `waiting`.
    fn forget(&mut self, key: QueueKey) {
        self.by_arrival.remove(&key.arrival);
        let Some(class) = self.classes.get_mut(&key.priority) else { return };
        class.waiting -= 1;
        let clock = class.clock;
        if class.waiting == 0 {
            self.classes.remove(&key.priority);
        } else if class.last.len() > 2 * class.waiting {
            class.last.retain(|_, last| last.end > clock);
        }
    }
}
