//! The queue: whose query is next.
//!
//! The smaller a priority, the sooner. Within a priority, clients take turns by tokens: a query's turn comes as if each
//! client's queries were served at the same rate (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996). So that
//! nothing waits for ever, the query that has waited longest is tried first whenever [`PATIENCE`] others have been taken
//! before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use crate::running::Job;
use crate::scheduler::QueryId;
use crate::scorer::Turn;

/// How many queries are taken before the one that has waited longest.
const PATIENCE: usize = 16;

/// A place in the queue: priority, the client's virtual time at which the query starts, and arrival.
pub(crate) type Place = (i32, u64, u64);

/// A query that waits, maybe for another one.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) job: Job,
    /// The one that it waits for, or waited for last.
    pub(crate) behind: Option<Leader>,
}

/// The query that computes what another needs, until it has published that many tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leader {
    pub(crate) id: QueryId,
    pub(crate) tokens: usize,
}

/// Queries that were tried for a forward pass and must wait for another one.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    last: Option<Place>,
    /// The one that has waited longest, tried before the others.
    oldest: Option<Place>,
    pub(crate) count: usize,
}

/// Clients that wait in one priority.
#[derive(Debug, Default)]
struct Class {
    /// The virtual time of the query that was last taken in its turn.
    clock: u64,
    /// Each client's last query, in virtual time; those that end before `clock` are as good as new.
    last: HashMap<u64, Span>,
    waiting: usize,
}

/// When a query starts and ends.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u64,
    end: u64,
}

/// Queries that wait, in the order of their turns.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Place, Waiting>,
    /// Places by arrival.
    arrivals: BTreeMap<u64, Place>,
    classes: HashMap<i32, Class>,
    arrived: u64,
    /// Queries taken before the one that has waited longest.
    overtook: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, job: Job) {
        let turn = job.query.turn;
        let class = self.classes.entry(turn.priority).or_default();
        let last = class.last.entry(turn.client).or_default();
        let start = class.clock.max(last.end);
        *last = Span { start, end: start.saturating_add(job.longest() as u64) };
        class.waiting += 1;
        self.insert((turn.priority, start, self.arrived), Waiting { job, behind: None });
        self.arrived += 1;
    }

    fn insert(&mut self, place: Place, waiting: Waiting) {
        self.arrivals.insert(place.2, place);
        self.waiting.insert(place, waiting);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The smallest priority that waits.
    pub(crate) fn most_urgent(&self) -> Option<i32> {
        self.waiting.first_key_value().map(|(place, _)| place.0)
    }

    /// The query whose turn it is, but for those passed over.
    pub(crate) fn next(&self, passed: &Passed) -> Option<Place> {
        let overdue = self.oldest().filter(|&place| self.is_overdue(place) && passed.oldest != Some(place));
        let from = passed.last.map_or(Bound::Unbounded, Bound::Excluded);
        overdue.or_else(|| self.waiting.range((from, Bound::Unbounded)).next().map(|(&place, _)| place))
    }

    /// The query that has waited longest.
    fn oldest(&self) -> Option<Place> {
        self.arrivals.first_key_value().map(|(_, &place)| place)
    }

    /// Whether so many others went before this query that it is tried first.
    pub(crate) fn is_overdue(&self, place: Place) -> bool {
        self.overtook >= PATIENCE && self.oldest() == Some(place)
    }

    /// Passes over a query until the next forward pass.
    pub(crate) fn pass(&self, place: Place, passed: &mut Passed) {
        passed.count += 1;
        if self.overtook >= PATIENCE && passed.oldest.is_none() {
            passed.oldest = Some(place);
        } else {
            passed.last = Some(place);
        }
    }

    pub(crate) fn get(&self, place: Place) -> Option<&Waiting> {
        self.waiting.get(&place)
    }

    /// A query that waits until another one has computed what they share.
    pub(crate) fn defer(&mut self, place: Place, leader: Leader) {
        if let Some(waiting) = self.waiting.get_mut(&place) {
            waiting.behind = Some(leader);
        }
    }

    /// Takes a query whose turn it is.
    pub(crate) fn take(&mut self, place: Place) -> Option<Job> {
        let overdue = self.is_overdue(place);
        self.overtook = if self.oldest() == Some(place) { 0 } else { self.overtook + 1 };
        // One that goes before its turn leaves the clock alone: newcomers would start behind all that wait for theirs.
        if let Some(class) = self.classes.get_mut(&place.0).filter(|_| !overdue) {
            class.clock = class.clock.max(place.1);
        }
        self.remove(place)
    }

    /// Takes out these queries. Their clients are not charged for them: what these asked later moves up.
    pub(crate) fn cancel(&mut self, gone: &HashSet<QueryId>) {
        if !self.waiting.values().any(|waiting| gone.contains(&waiting.job.id)) {
            return;
        }
        let mut refunds: HashMap<(i32, u64), u64> = HashMap::new();
        for (place, waiting) in std::mem::take(&mut self.waiting) {
            let (priority, start, arrival) = place;
            let refund = refunds.entry((priority, waiting.job.query.turn.client)).or_default();
            if gone.contains(&waiting.job.id) {
                *refund += waiting.job.longest() as u64;
                self.leave(place);
            } else {
                self.insert((priority, start.saturating_sub(*refund), arrival), waiting);
            }
        }
        for ((priority, client), refund) in refunds {
            let class = self.classes.get_mut(&priority);
            if let Some(last) = class.and_then(|class| class.last.get_mut(&client)) {
                *last = Span { start: last.start.saturating_sub(refund), end: last.end.saturating_sub(refund) };
            }
        }
    }

    /// Takes off a client's account what a query of its did not come to. What the client asked since keeps its turn, so that
    /// it stays in order.
    pub(crate) fn refund(&mut self, turn: Turn, tokens: usize) {
        let class = self.classes.get_mut(&turn.priority);
        if let Some(last) = class.and_then(|class| class.last.get_mut(&turn.client)) {
            last.end = last.end.saturating_sub(tokens as u64).max(last.start);
        }
    }

    fn remove(&mut self, place: Place) -> Option<Job> {
        let job = self.waiting.remove(&place)?.job;
        self.leave(place);
        Some(job)
    }

    /// Forgets a place that nothing waits at any more.
    fn leave(&mut self, place: Place) {
        self.arrivals.remove(&place.2);
        if let Some(class) = self.classes.get_mut(&place.0) {
            class.waiting -= 1;
            let clock = class.clock;
            if class.waiting == 0 {
                self.classes.remove(&place.0);
            } else if class.last.len() > 2 * class.waiting {
                class.last.retain(|_, last| last.end > clock);
            }
        }
    }
}
