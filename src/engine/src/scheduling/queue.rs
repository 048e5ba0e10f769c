//! The queue of waiting queries, which decides which query runs next.
//!
//! Smaller priorities run sooner. Within a priority, clients take turns by tokens: chunks run in the order in which
//! they would start if the engine served all clients at the same rate (start-time fair queueing: Goyal, Vin and Cheng,
//! SIGCOMM 1996). The tag of a query's first chunk is the virtual time at which the query starts. The tag of each later
//! chunk is greater by the tokens that the query has computed. The clock is the greatest tag of the chunks that have
//! run in their turn, so a new client's tag is never greater than that of a chunk that has yet to run. An idle client
//! starts up to one pass's tokens before the clock, unless it has had more than its share. So its short query runs before
//! the chunks of busy clients.
//!
//! Each client's queries run in the order of submission, so only the first one of each client is kept in this order,
//! and every operation on a query takes logarithmic time. `candidates.rs` decides which queries a pass tries.
//!
//! To prevent starvation, a client's first query becomes overdue once the engine has served other queries for
//! [`STARVATION_PASSES`] forward passes, counted in tokens, since this client and priority last had a turn. Overdue
//! queries are tried before the others, those of the client that has waited longest first, but get only a share of all
//! tokens.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::scheduling::client_queue::{ClientQueue, Position, PrefixDependency, WaitingQuery};
use crate::scheduling::job::{Job, QueryId};
use crate::scorer::SchedulingParams;
use crate::shrink::shrink;

/// Number of full forward passes after which the first query of a client becomes overdue.
const STARVATION_PASSES: u64 = 8;

/// Number of tokens of other queries for each token of an overdue query. So overdue queries get at most a ninth of all
/// tokens, and so does each of their clients.
const OVERDUE_COST: u64 = 8;

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
    pub(super) fn new(scheduling: SchedulingParams, Position { arrival, virtual_start }: Position) -> Self {
        Self { priority: scheduling.priority, virtual_start, arrival, client: scheduling.client }
    }

    pub(super) fn scheduling(self) -> SchedulingParams {
        SchedulingParams { priority: self.priority, client: self.client }
    }

    /// Returns the tag of the query's first chunk.
    pub(crate) fn tag(self) -> Tag {
        Tag { priority: self.priority, virtual_time: self.virtual_start }
    }

    pub(super) fn position(self) -> Position {
        Position { arrival: self.arrival, virtual_start: self.virtual_start }
    }
}

/// A chunk's place in the order of chunks; smaller tags run sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag {
    pub(crate) priority: i32,
    pub(crate) virtual_time: u64,
}

/// The state of one priority while queries of this priority wait or run.
#[derive(Debug, Default)]
struct PriorityClass {
    /// The greatest tag of the chunks that have run in their turn.
    clock: u64,
    /// The clients with waiting queries, and those whose next query would start later than `earliest_start`.
    clients: HashMap<u64, ClientQueue>,
    waiting: usize,
    running: usize,
    /// Number of clients at which those that no longer matter are removed.
    next_cleanup: usize,
}

impl PriorityClass {
    /// Returns the tag of a query that a client sends now, after it has been idle.
    fn earliest_start(&self, burst: u64) -> u64 {
        self.clock.saturating_sub(burst)
    }

    /// Removes the clients that no longer matter, if there are many. Takes amortized constant time.
    fn clean_up(&mut self, burst: u64) {
        if self.clients.len() < self.next_cleanup.max(2 * self.waiting) {
            return;
        }
        let now = self.earliest_start(burst);
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
    pub(super) heads: BTreeSet<QueueKey>,
    /// The same queries, by the value of `served_tokens` since which each client has waited.
    pub(super) by_wait: BTreeSet<(u64, QueueKey)>,
    classes: HashMap<i32, PriorityClass>,
    /// The client of each short query that was sent after an idle period, by priority and arrival. It is the client's
    /// only query.
    after_idle: BTreeMap<(i32, u64), u64>,
    /// Number of waiting and running queries of each client that has any.
    active: HashMap<u64, usize>,
    /// The place of each waiting query.
    places: HashMap<QueryId, (SchedulingParams, u64)>,
    next_arrival: u64,
    /// Number of waiting queries that do not generate.
    scoring: usize,
    /// Number of tokens that have been computed or reused from the cache, in total.
    served_tokens: u64,
    /// Number of tokens after which a waiting client's first query is overdue.
    overdue_after: u64,
    /// Number of tokens that overdue queries may cost before others must run again.
    pub(super) overdue_credit: i64,
    /// Number of tokens by which an idle client starts before the clock: those of one pass.
    burst: u64,
}

impl Queue {
    /// Creates a queue for passes of at most `token_budget` tokens.
    pub(crate) fn new(token_budget: usize) -> Self {
        Self {
            heads: BTreeSet::new(),
            by_wait: BTreeSet::new(),
            classes: HashMap::new(),
            after_idle: BTreeMap::new(),
            active: HashMap::new(),
            places: HashMap::new(),
            next_arrival: 0,
            scoring: 0,
            served_tokens: 0,
            overdue_after: STARVATION_PASSES.saturating_mul(token_budget as u64),
            overdue_credit: 0,
            burst: token_budget as u64,
        }
    }

    /// Adds a query and charges its client for the query's maximum length in tokens.
    pub(crate) fn push(&mut self, job: Job) {
        let scheduling = job.query.scheduling;
        let class = self.classes.entry(scheduling.priority).or_default();
        class.waiting += 1;
        class.clients.entry(scheduling.client).or_default();
        let queries = self.active.entry(scheduling.client).or_default();
        *queries += 1;
        let is_only = *queries == 1;
        let (clock, now) = (class.clock, class.earliest_start(self.burst));
        let (arrival, served_tokens) = (self.next_arrival, self.served_tokens);
        self.next_arrival += 1;
        self.places.insert(job.id, (scheduling, arrival));
        self.scoring += usize::from(job.generation.is_none());
        // A client was idle if, since its last turn, the engine has served a full pass for each client.
        let idle_tokens = self.burst.saturating_mul(self.active.len() as u64);
        let is_short = job.generation.is_none() && job.max_len() as u64 <= self.burst.saturating_add(1);
        let was_idle = self.change(scheduling, |client| {
            if !client.is_waiting() {
                client.waiting_since = served_tokens;
            }
            client.push(arrival, now, job);
            served_tokens.saturating_sub(client.served_at) >= idle_tokens && !client.is_charged(clock)
        });
        if is_short && is_only && was_idle == Some(true) {
            self.after_idle.insert((scheduling.priority, arrival), scheduling.client);
        }
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

    /// Returns whether a client that has waited since `waiting_since` has waited too long.
    pub(crate) fn is_overdue_since(&self, waiting_since: u64) -> bool {
        self.served_tokens.saturating_sub(waiting_since) >= self.overdue_after
    }

    /// Returns whether the query is the first one of its client, and overdue.
    pub(crate) fn is_overdue(&self, key: QueueKey) -> bool {
        self.heads.contains(&key)
            && self.client(key.scheduling()).is_some_and(|client| self.is_overdue_since(client.waiting_since))
    }

    /// Returns the number of tokens that have been computed or reused from the cache, in total.
    pub(crate) fn served_tokens(&self) -> u64 {
        self.served_tokens
    }

    pub(super) fn client(&self, SchedulingParams { priority, client }: SchedulingParams) -> Option<&ClientQueue> {
        self.classes.get(&priority)?.clients.get(&client)
    }

    fn client_mut(&mut self, SchedulingParams { priority, client }: SchedulingParams) -> Option<&mut ClientQueue> {
        self.classes.get_mut(&priority)?.clients.get_mut(&client)
    }

    pub(crate) fn get(&self, key: QueueKey) -> Option<&WaitingQuery> {
        self.client(key.scheduling())?.get(key.arrival)
    }

    fn get_mut(&mut self, key: QueueKey) -> Option<&mut WaitingQuery> {
        self.client_mut(key.scheduling())?.get_mut(key.arrival)
    }

    /// Makes a query wait until another query has computed the prefix that they share.
    pub(crate) fn defer(&mut self, key: QueueKey, dependency: PrefixDependency) {
        if let Some(waiting) = self.get_mut(key) {
            waiting.dependency = Some(dependency);
        }
    }

    /// Records how many tokens a query that could not start must compute.
    pub(crate) fn set_uncomputed(&mut self, key: QueueKey, tokens: usize) {
        if let Some(waiting) = self.get_mut(key) {
            waiting.uncomputed = Some(tokens);
        }
    }

    /// Removes a query from the queue to run it, and returns its job. The query has yet to compute `uncomputed` tokens;
    /// it reuses the others. The caller must call [`Queue::end`] when the query ends.
    pub(crate) fn take(&mut self, key: QueueKey, before_turn: bool, uncomputed: usize) -> Option<Job> {
        let scheduling = key.scheduling();
        let tokens = self.get(key)?.job.query.tokens.len();
        let reused = (tokens - uncomputed) as u64;
        if !before_turn {
            self.serve_in_turn(scheduling, key.tag(), reused);
        } else {
            self.serve_before_turn(reused);
            let cost = OVERDUE_COST.saturating_mul(tokens as u64);
            let served_tokens = self.served_tokens.saturating_add(uncomputed as u64);
            self.change(scheduling, |client| {
                client.waiting_since = client.waiting_since.saturating_add(cost).min(served_tokens);
                client.served_at = served_tokens;
            });
            self.overdue_credit = self.overdue_credit.saturating_sub_unsigned(cost);
        }
        let earliest = self.classes.get(&key.priority)?.earliest_start(self.burst);
        let job = self.change(scheduling, |client| client.take(key.arrival, earliest))??;
        if let Some(class) = self.classes.get_mut(&key.priority) {
            class.running += 1;
        }
        self.forget(&job);
        Some(job)
    }

    /// Returns the tag of a started query's first chunk: `tag`, or the tag of a query that an idle client would send now
    /// if that is later. Otherwise, a query that waited for a slot or blocks would run before all others until it caught
    /// up.
    pub(crate) fn clamp_to_earliest_start(&self, tag: Tag) -> Tag {
        let earliest = self.classes.get(&tag.priority).map_or(0, |class| class.earliest_start(self.burst));
        Tag { virtual_time: tag.virtual_time.max(earliest), ..tag }
    }

    /// Returns the most urgent short query that was sent after an idle period, the oldest of these.
    pub(crate) fn first_after_idle(&self) -> Option<QueueKey> {
        let (&(priority, _), &client) = self.after_idle.first_key_value()?;
        let scheduling = SchedulingParams { priority, client };
        Some(QueueKey::new(scheduling, self.client(scheduling)?.first()?))
    }

    /// Treats a query from now on as if its client had not been idle.
    pub(crate) fn forget_idle(&mut self, key: QueueKey) {
        self.after_idle.remove(&(key.priority, key.arrival));
    }

    /// Records that a client's chunk of `tokens` tokens runs in its turn.
    pub(crate) fn serve_in_turn(&mut self, scheduling: SchedulingParams, tag: Tag, tokens: u64) {
        self.served_tokens = self.served_tokens.saturating_add(tokens);
        let most = i64::try_from(self.overdue_after.max(tokens)).unwrap_or(i64::MAX);
        self.overdue_credit = self.overdue_credit.saturating_add_unsigned(tokens).min(most);
        let served_tokens = self.served_tokens;
        self.change(scheduling, |client| (client.waiting_since, client.served_at) = (served_tokens, served_tokens));
        if let Some(class) = self.classes.get_mut(&scheduling.priority) {
            class.clock = class.clock.max(tag.virtual_time);
        }
    }

    /// Records that a chunk of `tokens` tokens runs before its turn.
    ///
    /// It does not advance the clock. Otherwise, new clients would start behind all queries that still wait for their
    /// turn.
    pub(crate) fn serve_before_turn(&mut self, tokens: u64) {
        self.served_tokens = self.served_tokens.saturating_add(tokens);
    }

    /// Cancels a query; returns whether it was waiting. Its client's later queries move up.
    pub(crate) fn cancel(&mut self, id: QueryId) -> bool {
        let Some(&(scheduling, arrival)) = self.places.get(&id) else { return false };
        let Some(Some(job)) = self.change(scheduling, |client| client.cancel(arrival)) else { return false };
        self.forget(&job);
        self.deactivate(scheduling.client);
        true
    }

    /// Records that a query that left the queue has ended with `sampled` tokens, and refunds its client for the tokens
    /// that it was charged for but that were neither computed nor sampled.
    pub(crate) fn end(&mut self, scheduling: SchedulingParams, sampled: usize, unused: usize) {
        self.served_tokens = self.served_tokens.saturating_add(sampled as u64);
        self.change(scheduling, |client| client.refund(unused as u64));
        if let Some(class) = self.classes.get_mut(&scheduling.priority) {
            class.running -= 1;
        }
        self.deactivate(scheduling.client);
        self.clean_up(scheduling.priority);
    }

    /// Records that a query of a client has ended.
    fn deactivate(&mut self, client: u64) {
        if let Entry::Occupied(mut queries) = self.active.entry(client) {
            *queries.get_mut() -= 1;
            if *queries.get() == 0 {
                queries.remove();
                shrink(&mut self.active);
            }
        }
    }

    /// Removes the remaining state of a query that has left its client's queue.
    fn forget(&mut self, job: &Job) {
        if let Some((scheduling, arrival)) = self.places.remove(&job.id) {
            self.after_idle.remove(&(scheduling.priority, arrival));
        }
        shrink(&mut self.places);
        self.scoring -= usize::from(job.generation.is_none());
        let priority = job.query.scheduling.priority;
        if let Some(class) = self.classes.get_mut(&priority) {
            class.waiting -= 1;
        }
        self.clean_up(priority);
    }

    /// Removes a priority without waiting or running queries, or else its clients that no longer matter.
    ///
    /// As long as a query runs, the priority keeps its clock and its clients' charges. Otherwise, a client that has
    /// just been served would start before the next chunks of the others.
    fn clean_up(&mut self, priority: i32) {
        let Some(class) = self.classes.get_mut(&priority) else { return };
        if class.waiting + class.running == 0 {
            self.classes.remove(&priority);
            shrink(&mut self.classes);
        } else {
            class.clean_up(self.burst);
        }
    }
}
