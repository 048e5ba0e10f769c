//! The queue of waiting queries, which decides which query runs next.
//!
//! Smaller priorities run sooner. Within a priority, clients take turns by tokens: queries run in the order in which
//! they would start if the engine served all clients at the same rate (start-time fair queueing: Goyal, Vin and Cheng,
//! SIGCOMM 1996). Each client's queries run in the order of submission, so only the first one of each client is kept in
//! this order, and every operation on a query takes logarithmic time.
//!
//! To prevent starvation, a client's first query becomes overdue once the engine has started other queries of
//! [`STARVATION_PASSES`] forward passes, counted in tokens, since it last started one of this client and priority.
//! Overdue queries are tried before the others, those of the client that has waited longest first, but get only a share
//! of all tokens.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use crate::scheduling::client_queue::{ClientQueue, Position, PrefixDependency, WaitingQuery};
use crate::scheduling::job::{Job, QueryId};
use crate::scorer::SchedulingParams;
use crate::shrink::shrink;

/// Number of full forward passes after which the first query of a client becomes overdue.
const STARVATION_PASSES: u64 = 8;

/// Number of tokens of other queries for each token of an overdue query. So overdue queries get at most a ninth of all
/// tokens, and so does each of their clients.
const OVERDUE_COST: u64 = 8;

/// Maximum number of overdue queries that are tried before their turn in a pass.
const MAX_OVERDUE_TRIED: usize = 64;

/// Maximum number of clients without waiting queries that a priority remembers.
const MAX_IDLE_CLIENTS: usize = 1 << 16;

/// A position in the queue; smaller keys run sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    priority: i32,
    /// The client's virtual time at which the query starts.
    virtual_start: u64,
    /// Number of earlier submissions, which makes every key unique.
    arrival: u64,
    client: u64,
}

impl QueueKey {
    fn new(scheduling: SchedulingParams, Position { arrival, virtual_start }: Position) -> Self {
        Self { priority: scheduling.priority, virtual_start, arrival, client: scheduling.client }
    }

    fn scheduling(self) -> SchedulingParams {
        SchedulingParams { priority: self.priority, client: self.client }
    }

    fn position(self) -> Position {
        Position { arrival: self.arrival, virtual_start: self.virtual_start }
    }
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
}

/// The state of one priority: its clients and the number of its waiting queries.
#[derive(Debug, Default)]
struct PriorityClass {
    /// The virtual start time of the last query that left the queue in its turn.
    clock: u64,
    /// The clients with waiting queries, and those that would not start at `clock`.
    clients: HashMap<u64, ClientQueue>,
    waiting: usize,
    /// Number of clients at which those that no longer matter are removed.
    next_cleanup: usize,
}

impl PriorityClass {
    /// Removes the clients that no longer matter, if there are many. Takes amortized constant time.
    fn clean_up(&mut self) {
        if self.clients.len() < self.next_cleanup.max(2 * self.waiting) {
            return;
        }
        let now = self.clock;
        self.clients.retain(|_, client| client.is_waiting() || client.is_charged(now));
        if self.clients.len() > self.waiting + MAX_IDLE_CLIENTS {
            self.clients.retain(|_, client| client.is_waiting());
        }
        self.next_cleanup = 2 * self.clients.len() + 16;
        shrink(&mut self.clients);
    }
}

/// The waiting queries, in the order in which they run.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The first waiting query of each client and priority.
    heads: BTreeSet<QueueKey>,
    /// The same queries, by the value of `started_tokens` since which each client has waited.
    by_wait: BTreeSet<(u64, QueueKey)>,
    classes: HashMap<i32, PriorityClass>,
    /// The place of each waiting query.
    places: HashMap<QueryId, (SchedulingParams, u64)>,
    next_arrival: u64,
    /// Number of waiting queries that do not generate.
    scoring: usize,
    /// Number of tokens that have been started, in total.
    started_tokens: u64,
    /// Number of tokens after which a waiting client's first query is overdue.
    overdue_after: u64,
    /// Number of tokens that overdue queries may cost before others must run again.
    overdue_credit: i64,
}

impl Queue {
    /// Creates a queue for passes of at most `token_budget` tokens.
    pub(crate) fn new(token_budget: usize) -> Self {
        Self {
            heads: BTreeSet::new(),
            by_wait: BTreeSet::new(),
            classes: HashMap::new(),
            places: HashMap::new(),
            next_arrival: 0,
            scoring: 0,
            started_tokens: 0,
            overdue_after: STARVATION_PASSES.saturating_mul(token_budget as u64),
            overdue_credit: 0,
        }
    }

    /// Adds a query and charges its client for the query's maximum length in tokens.
    pub(crate) fn push(&mut self, job: Job) {
        let scheduling = job.query.scheduling;
        let class = self.classes.entry(scheduling.priority).or_default();
        class.waiting += 1;
        class.clients.entry(scheduling.client).or_default();
        let (now, arrival, started_tokens) = (class.clock, self.next_arrival, self.started_tokens);
        self.next_arrival += 1;
        self.places.insert(job.id, (scheduling, arrival));
        self.scoring += usize::from(job.generation.is_none());
        self.change(scheduling, |client| {
            if !client.is_waiting() {
                client.waiting_since = started_tokens;
            }
            client.push(arrival, now, job);
        });
    }

    /// Changes a client's queue and keeps `heads` and `by_wait` up to date; returns `None` if there is no such client.
    fn change<T>(&mut self, scheduling: SchedulingParams, change: impl FnOnce(&mut ClientQueue) -> T) -> Option<T> {
        let client = self.client_mut(scheduling)?;
        let head = |client: &ClientQueue| {
            let first = client.first().map(|first| QueueKey::new(scheduling, first))?;
            Some((client.waiting_since, first))
        };
        let before = head(client);
        let changed = change(client);
        let after = head(client);
        if before != after {
            if let Some(before) = before {
                self.by_wait.remove(&before);
                self.heads.remove(&before.1);
            }
            self.by_wait.extend(after);
            self.heads.extend(after.map(|(_, key)| key));
        }
        Some(changed)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the number of waiting queries that do not generate.
    pub(crate) fn scoring(&self) -> usize {
        self.scoring
    }

    /// Returns the most urgent priority of all waiting queries.
    pub(crate) fn most_urgent(&self) -> Option<i32> {
        self.heads.first().map(|key| key.priority)
    }

    /// Returns the query to try next, omitting those skipped in this pass.
    pub(crate) fn next(&self, skipped: &mut SkippedQueries) -> Option<QueueKey> {
        if let Some(overdue) = self.next_overdue(skipped) {
            return Some(overdue);
        }
        // A successor may have left the queue in this pass.
        while let Some(&key) = skipped.successors.first()
            && self.get(key).is_none()
        {
            skipped.successors.remove(&key);
            skipped.successors.extend(self.after(key));
        }
        let after = skipped.last_head.map_or(Bound::Unbounded, Bound::Excluded);
        let head = self.heads.range((after, Bound::Unbounded)).find(|&key| !skipped.overdue.contains(key));
        head.into_iter().chain(skipped.successors.first()).min().copied()
    }

    /// Returns the overdue query that has waited longest of those that were not tried in this pass.
    fn next_overdue(&self, skipped: &SkippedQueries) -> Option<QueueKey> {
        if self.overdue_credit <= 0 {
            return None;
        }
        let overdue = self.by_wait.iter().take_while(|&&(since, _)| self.is_overdue_since(since));
        let mut keys = overdue.take(MAX_OVERDUE_TRIED).map(|&(_, key)| key);
        keys.find(|key| skipped.last_head < Some(*key) && !skipped.overdue.contains(key))
    }

    fn is_overdue_since(&self, waiting_since: u64) -> bool {
        self.started_tokens.saturating_sub(waiting_since) >= self.overdue_after
    }

    /// Returns whether the query is the first one of its client, and overdue.
    pub(crate) fn is_overdue(&self, key: QueueKey) -> bool {
        self.heads.contains(&key)
            && self.client(key.scheduling()).is_some_and(|client| self.is_overdue_since(client.waiting_since))
    }

    /// Skips a query until the next forward pass.
    pub(crate) fn skip(&self, key: QueueKey, skipped: &mut SkippedQueries) {
        skipped.successors.remove(&key);
        if self.next_overdue(skipped) == Some(key) {
            skipped.overdue.insert(key);
        } else if self.heads.contains(&key) {
            skipped.last_head = skipped.last_head.max(Some(key));
        }
        skipped.successors.extend(self.after(key));
    }

    /// Returns the next query of the same client and priority.
    fn after(&self, key: QueueKey) -> Option<QueueKey> {
        let next = self.client(key.scheduling())?.after(key.position())?;
        Some(QueueKey::new(key.scheduling(), next))
    }

    fn client(&self, SchedulingParams { priority, client }: SchedulingParams) -> Option<&ClientQueue> {
        self.classes.get(&priority)?.clients.get(&client)
    }

    fn client_mut(&mut self, SchedulingParams { priority, client }: SchedulingParams) -> Option<&mut ClientQueue> {
        self.classes.get_mut(&priority)?.clients.get_mut(&client)
    }

    pub(crate) fn get(&self, key: QueueKey) -> Option<&WaitingQuery> {
        self.client(key.scheduling())?.get(key.arrival)
    }

    /// Makes a query wait until another query has computed the prefix that they share.
    pub(crate) fn defer(&mut self, key: QueueKey, dependency: PrefixDependency) {
        let client = self.client_mut(key.scheduling());
        if let Some(waiting) = client.and_then(|client| client.get_mut(key.arrival)) {
            waiting.dependency = Some(dependency);
        }
    }

    /// Removes a query from the queue to run it, and returns its job.
    pub(crate) fn take(&mut self, key: QueueKey) -> Option<Job> {
        let (scheduling, now) = (key.scheduling(), self.started_tokens);
        let before_its_turn = self.heads.first() != Some(&key) && self.is_overdue(key);
        let tokens = self.get(key)?.job.query.tokens.len() as u64;
        let (cost, started_tokens) = (OVERDUE_COST.saturating_mul(tokens), now.saturating_add(tokens));
        let job = self.change(scheduling, |client| {
            let overdue_since = client.waiting_since.saturating_add(cost);
            client.waiting_since = if before_its_turn { overdue_since.min(started_tokens) } else { started_tokens };
            client.take(key.arrival)
        })??;
        self.started_tokens = started_tokens;
        if before_its_turn {
            self.overdue_credit = self.overdue_credit.saturating_sub_unsigned(cost);
        } else {
            let most = i64::try_from(self.overdue_after.max(tokens)).unwrap_or(i64::MAX);
            self.overdue_credit = self.overdue_credit.saturating_add_unsigned(tokens).min(most);
            // A query that runs before its turn does not advance the clock. Otherwise, new clients would start behind
            // all queries that still wait for their turn.
            if let Some(class) = self.classes.get_mut(&scheduling.priority) {
                class.clock = class.clock.max(key.virtual_start);
            }
        }
        self.forget(&job);
        Some(job)
    }

    /// Cancels a query; returns whether it was waiting. Its client's later queries move up.
    pub(crate) fn cancel(&mut self, id: QueryId) -> bool {
        let Some(&(scheduling, arrival)) = self.places.get(&id) else { return false };
        let Some(Some(job)) = self.change(scheduling, |client| client.cancel(arrival)) else { return false };
        self.forget(&job);
        true
    }

    /// Counts the tokens that a query has sampled, and refunds its client for those that it was charged for but did not
    /// sample.
    pub(crate) fn end(&mut self, scheduling: SchedulingParams, sampled: usize, unsampled: usize) {
        self.started_tokens = self.started_tokens.saturating_add(sampled as u64);
        self.change(scheduling, |client| client.refund(unsampled as u64));
    }

    /// Removes the remaining state of a query that has left its client's queue.
    fn forget(&mut self, job: &Job) {
        self.places.remove(&job.id);
        shrink(&mut self.places);
        self.scoring -= usize::from(job.generation.is_none());
        let priority = job.query.scheduling.priority;
        let Some(class) = self.classes.get_mut(&priority) else { return };
        class.waiting -= 1;
        if class.waiting == 0 {
            self.classes.remove(&priority);
        } else {
            class.clean_up();
        }
    }
}
