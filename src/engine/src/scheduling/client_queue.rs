//! The waiting queries of one client and one priority, in the order of submission.
//!
//! Virtual time counts tokens. A query starts, in virtual time, when the client's previous query has ended, but no
//! earlier than the queue permits. Start times are computed on demand, from the first query on. So
//! a cancelled query leaves no trace, and no other query has to move.

use std::collections::BTreeMap;

use crate::scheduling::job::{Job, QueryId};

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
    /// Number of tokens that the query had to compute when it last could not start; `None` if unknown.
    pub(crate) uncomputed: Option<usize>,
}

impl WaitingQuery {
    /// Returns `true` if the query is to be continued.
    pub(crate) fn generates(&self) -> bool {
        self.job.generation.is_some()
    }
}

/// A query's place in its client's queue.
#[derive(Debug)]
struct Place {
    /// The virtual time before which the query does not start.
    earliest: u64,
    /// The query's maximum length in tokens, which its client is charged.
    tokens: u64,
    /// `None` if the query has left the queue before one that was submitted earlier.
    waiting: Option<WaitingQuery>,
}

impl Place {
    /// Returns the virtual time at which the query starts if the previous one ends at `previous_end`.
    fn start(&self, previous_end: u64) -> u64 {
        self.earliest.max(previous_end)
    }

    fn end(&self, previous_end: u64) -> u64 {
        self.start(previous_end).saturating_add(self.tokens)
    }

    /// Adds the next place to this one. The sum ends when the next place would end, whatever comes before the two.
    fn absorb(&mut self, next: &Self) {
        self.earliest = self.earliest.max(next.earliest.saturating_sub(self.tokens));
        self.tokens = self.tokens.saturating_add(next.tokens);
    }
}

/// The position of a waiting query: its arrival, and the virtual time at which it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) arrival: u64,
    pub(crate) virtual_start: u64,
}

/// A client's waiting queries of one priority.
#[derive(Debug, Default)]
pub(crate) struct ClientQueue {
    /// Virtual end time of the last query that left the queue to run.
    served_until: u64,
    /// Number of tokens that the engine had served when it last ran a chunk of this client in its turn or, if none
    /// waited, when the client sent a query. A query that ran before its turn advances it by a multiple of its tokens.
    pub(crate) waiting_since: u64,
    /// Number of tokens that the engine had served when it last ran a chunk of this client in its turn, or started one of
    /// its queries before its turn.
    pub(crate) served_at: u64,
    /// The queries by arrival. The first one is waiting.
    places: BTreeMap<u64, Place>,
}

impl ClientQueue {
    /// Adds a query that starts no earlier than at the virtual time `earliest`.
    pub(crate) fn push(&mut self, arrival: u64, earliest: u64, job: Job) {
        let tokens = job.max_len() as u64;
        let waiting = Some(WaitingQuery { job, dependency: None, uncomputed: None });
        self.places.insert(arrival, Place { earliest, tokens, waiting });
    }

    /// Returns the position of the query that was submitted first.
    pub(crate) fn first(&self) -> Option<Position> {
        let (&arrival, place) = self.places.first_key_value()?;
        Some(Position { arrival, virtual_start: place.start(self.served_until) })
    }

    /// Returns the position of the next waiting query after the one at `position`; if `only_scoring` is set, of the
    /// next one that does not generate.
    pub(crate) fn after(&self, position: Position, only_scoring: bool) -> Option<Position> {
        let mut end = position.virtual_start.saturating_add(self.places.get(&position.arrival)?.tokens);
        for (&arrival, place) in self.places.range(position.arrival + 1..) {
            if place.waiting.as_ref().is_some_and(|waiting| !only_scoring || !waiting.generates()) {
                return Some(Position { arrival, virtual_start: place.start(end) });
            }
            end = place.end(end);
        }
        None
    }

    pub(crate) fn get(&self, arrival: u64) -> Option<&WaitingQuery> {
        self.places.get(&arrival)?.waiting.as_ref()
    }

    pub(crate) fn get_mut(&mut self, arrival: u64) -> Option<&mut WaitingQuery> {
        self.places.get_mut(&arrival)?.waiting.as_mut()
    }

    /// Removes a query to run it, and charges the client for its tokens. The query starts no earlier than at the virtual
    /// time `earliest`, so that a client gets no credit for the time in which its queries could not start.
    pub(crate) fn take(&mut self, arrival: u64, earliest: u64) -> Option<Job> {
        let place = self.places.get_mut(&arrival)?;
        let waiting = place.waiting.take()?;
        place.earliest = place.earliest.max(earliest);
        self.merge_served(arrival);
        self.pass_served();
        Some(waiting.job)
    }

    /// Removes a query as if it had never been submitted.
    pub(crate) fn cancel(&mut self, arrival: u64) -> Option<Job> {
        let waiting = self.places.remove(&arrival)?.waiting?;
        if let Some((&before, _)) = self.places.range(..arrival).next_back() {
            self.merge_served(before);
        }
        self.pass_served();
        Some(waiting.job)
    }

    /// Merges a place whose query has left the queue with its neighbors of the same kind. Otherwise, places would pile
    /// up behind a query that cannot start for a long time.
    fn merge_served(&mut self, arrival: u64) {
        let is_served = |place: &Place| place.waiting.is_none();
        if !self.places.get(&arrival).is_some_and(is_served) {
            return;
        }
        let next = self.places.range(arrival + 1..).next().filter(|(_, place)| is_served(place)).map(|next| *next.0);
        let before =
            self.places.range(..arrival).next_back().filter(|(_, place)| is_served(place)).map(|before| *before.0);
        for (first, second) in [(Some(arrival), next), (before, Some(arrival))] {
            if let (Some(first), Some(second)) = (first, second)
                && let Some(absorbed) = self.places.remove(&second)
                && let Some(place) = self.places.get_mut(&first)
            {
                place.absorb(&absorbed);
            }
        }
    }

    /// Removes the places at the front whose queries have left the queue.
    fn pass_served(&mut self) {
        while let Some(first) = self.places.first_entry()
            && first.get().waiting.is_none()
        {
            self.served_until = first.remove().end(self.served_until);
        }
    }

    /// Refunds tokens that the client was charged for but did not use.
    pub(crate) fn refund(&mut self, tokens: u64) {
        self.served_until = self.served_until.saturating_sub(tokens);
    }

    /// Returns `true` if the client has waiting queries.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.places.is_empty()
    }

    /// Returns `true` if the client's next query would start later than one of a new client.
    pub(crate) fn is_charged(&self, now: u64) -> bool {
        self.served_until > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Query;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Returns the positions of all waiting queries.
    fn positions(client: &ClientQueue) -> Vec<(u64, u64)> {
        let mut positions = Vec::new();
        let mut next = client.first();
        while let Some(position) = next {
            positions.push((position.arrival, position.virtual_start));
            next = client.after(position, false);
        }
        positions
    }

    /// Queries that start while the client's first one waits take no memory, and the others start as if all places were
    /// kept.
    #[test]
    fn places_of_started_queries_are_merged_without_effect() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut client = ClientQueue::default();
        let mut kept: Vec<(u64, u64, bool)> = Vec::new();
        let mut now = 0;
        for arrival in 0..1000 {
            now += rng.random_range(0..40);
            let tokens = rng.random_range(2..60);
            let query = Query::new(vec![0; tokens], 1);
            client.push(arrival, now, Job { id: arrival, query, generation: None });
            kept.push((now, tokens as u64, true));
        }
        for _ in 0..1500 {
            let arrival = rng.random_range(1..1000_u64);
            if client.take(arrival, 0).is_some() {
                kept[arrival as usize].2 = false;
            }
            let mut end = 0;
            let mut expected = Vec::new();
            for (arrival, &(submitted, tokens, is_waiting)) in kept.iter().enumerate() {
                let start = submitted.max(end);
                end = start + tokens;
                expected.extend(is_waiting.then_some((arrival as u64, start)));
            }
            assert_eq!(positions(&client), expected);
            assert!(client.places.len() <= 2 * expected.len(), "{} places", client.places.len());
        }
        assert!(kept.iter().filter(|place| place.2).count() < 300);
    }
}
