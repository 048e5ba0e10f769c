//! Turns: fair access of clients to the threads that parse and tokenize requests and write responses.
//!
//! Clients take turns by start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), as in the engine's queue: a
//! job's cost is its memory, which grows with its time. So a client that sends little does not wait for all jobs of a
//! client that sends much. Jobs that need more than [`SMALL_MEMORY`] are large. Together, the large jobs that run need
//! at most the configured memory, and they leave one thread to the small ones.

use std::collections::{BTreeMap, HashMap};
use std::ops::Add;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::background;
use crate::problem::{self, Failure};

/// The maximum memory of a small job, in bytes.
const SMALL_MEMORY: usize = 16 << 20;

/// The minimum number of accounts at which those that no longer matter are removed.
const MIN_CLEANUP: usize = 1024;

/// The estimated size of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobSize {
    /// Number of bytes to process.
    pub(crate) bytes: usize,
    /// Memory that the job takes while it runs, in bytes.
    pub(crate) memory: usize,
}

impl Add for JobSize {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), memory: self.memory.saturating_add(other.memory) }
    }
}

/// The queue of jobs and the resources that they share. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Mutex<State>>);

/// A job's turn, which lasts until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    place: Place,
    memory: usize,
}

/// A job's place in the queue: its virtual start time, and its number.
type Place = (u64, u64);

#[derive(Debug)]
struct State {
    threads: usize,
    /// Number of threads that run no job.
    free_threads: usize,
    /// Number of large jobs that run.
    large_jobs: usize,
    /// Memory limit of all large jobs.
    memory_limit: usize,
    /// Memory of the large jobs that run.
    memory: usize,
    /// Virtual time: the start time of the last job that began.
    clock: u64,
    /// Number of jobs so far.
    jobs: u64,
    /// Virtual time at which each account's jobs so far end.
    ends: HashMap<u64, u64>,
    /// Number of accounts at which those that no longer matter are removed.
    next_cleanup: usize,
    small: BTreeMap<Place, Waiting>,
    large: BTreeMap<Place, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    memory: usize,
    begin: oneshot::Sender<()>,
}

impl Turns {
    /// Creates a queue for this number of threads, at least two, whose large jobs share this memory, in bytes.
    pub(crate) fn new(threads: usize, memory_limit: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            threads: threads.max(2),
            free_threads: threads.max(2),
            large_jobs: 0,
            memory_limit,
            memory: 0,
            clock: 0,
            jobs: 0,
            ends: HashMap::new(),
            next_cleanup: MIN_CLEANUP,
            small: BTreeMap::new(),
            large: BTreeMap::new(),
        })))
    }

    /// Waits for the turn of an account's job, whose memory counts as at most the limit. Dropping the future leaves the
    /// queue.
    pub(crate) async fn take(&self, account: u64, memory: usize) -> Turn {
        let (begin, begun) = oneshot::channel();
        let turn = {
            let mut state = self.lock();
            let memory = memory.min(state.memory_limit);
            let place = state.enqueue(account, Waiting { memory, begin });
            state.begin_jobs();
            Turn { turns: self.clone(), place, memory }
        };
        // The sender is dropped only after the job has begun.
        let _ = begun.await;
        turn
    }

    /// Runs a job of an account on a blocking thread when it is the job's turn. The job continues even if the future is
    /// dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        account: u64,
        memory: usize,
        job: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = self.take(account, memory).await;
        let done = background::spawn(&Handle::current(), move || {
            let done = job();
            drop(turn);
            done
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "blocking task failed");
            Err(problem::internal())
        })
    }

    /// Locks the state. Every update leaves it consistent, so a panic while the lock is held does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let was_waiting = state.queue(self.memory).remove(&self.place).is_some();
        if !was_waiting {
            state.free_threads += 1;
            if is_large(self.memory) {
                state.memory -= self.memory;
                state.large_jobs -= 1;
            }
        }
        state.begin_jobs();
    }
}

impl State {
    fn queue(&mut self, memory: usize) -> &mut BTreeMap<Place, Waiting> {
        if is_large(memory) { &mut self.large } else { &mut self.small }
    }

    fn enqueue(&mut self, account: u64, job: Waiting) -> Place {
        let memory = job.memory;
        let end = self.ends.entry(account).or_default();
        let start = self.clock.max(*end);
        *end = start.saturating_add(memory as u64);
        self.jobs += 1;
        let place = (start, self.jobs);
        self.queue(memory).insert(place, job);
        place
    }

    /// Begins jobs while there are threads and memory for them.
    fn begin_jobs(&mut self) {
        while let Some(is_large) = self.choose() {
            let queue = if is_large { &mut self.large } else { &mut self.small };
            let Some(((start, _), job)) = queue.pop_first() else { return };
            self.clock = self.clock.max(start);
            self.free_threads -= 1;
            if is_large {
                self.memory += job.memory;
                self.large_jobs += 1;
            }
            // If the client has disconnected, its turn is dropped, which ends the job.
            let _ = job.begin.send(());
        }
        if self.small.is_empty() && self.large.is_empty() {
            // No job waits, so past usage no longer matters.
            self.ends.clear();
        } else if self.ends.len() >= self.next_cleanup {
            let now = self.clock;
            self.ends.retain(|_, end| *end > now);
            self.next_cleanup = 2 * self.ends.len() + MIN_CLEANUP;
        }
    }

    /// Chooses between the first small and the first large job, if any can begin. Returns `true` for the large one.
    fn choose(&self) -> Option<bool> {
        let small = self.small.first_key_value().filter(|_| self.free_threads > 0);
        let large = self.large.first_key_value().filter(|(_, job)| {
            self.free_threads > 0 && self.large_jobs + 1 < self.threads && self.memory + job.memory <= self.memory_limit
        });
        match (small, large) {
            (None, None) => None,
            (Some((small, _)), Some((large, _))) => Some(large < small),
            (_, large) => Some(large.is_some()),
        }
    }
}

fn is_large(memory: usize) -> bool {
    memory > SMALL_MEMORY
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const LARGE: usize = SMALL_MEMORY + 1;

    /// Returns the turn if it has begun.
    fn poll(turn: Pin<&mut impl Future<Output = Turn>>) -> Option<Turn> {
        match turn.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn clients_take_turns() {
        let turns = Turns::new(2, LARGE);
        let mut running = vec![poll(pin!(turns.take(1, 10))).unwrap(), poll(pin!(turns.take(1, 10))).unwrap()];
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(turns.take(1, 10))).collect();
        waiting.extend((0..2).map(|_| Box::pin(turns.take(2, 10))));
        let mut order = Vec::new();
        assert!(waiting.iter_mut().all(|turn| poll(turn.as_mut()).is_none()));
        let mut begun = vec![false; waiting.len()];
        while begun.contains(&false) {
            drop(running.remove(0));
            for (index, turn) in waiting.iter_mut().enumerate().filter(|(index, _)| !begun[*index]).collect::<Vec<_>>()
            {
                if let Some(turn) = poll(turn.as_mut()) {
                    running.push(turn);
                    order.push(index);
                }
            }
            order.iter().for_each(|&index| begun[index] = true);
        }
        // The jobs of the second client, 4 and 5, do not wait for all jobs of the first.
        assert_eq!(order, [0, 4, 1, 5, 2, 3]);
    }

    #[test]
    fn large_jobs_share_the_memory_and_leave_a_thread() {
        let turns = Turns::new(4, 2 * LARGE);
        let first = poll(pin!(turns.take(1, LARGE))).unwrap();
        let mut second = Box::pin(turns.take(1, 10 * LARGE));
        assert!(poll(second.as_mut()).is_none(), "a job counts as at most the limit, and then runs alone");
        let small: Vec<Turn> = (0..3).map(|_| poll(pin!(turns.take(1, SMALL_MEMORY))).unwrap()).collect();
        drop(first);
        let second = poll(second.as_mut()).unwrap();
        drop(small);
        assert!(poll(pin!(turns.take(2, LARGE))).is_none());
        drop(second);
        let state = turns.lock();
        assert_eq!((state.free_threads, state.memory, state.ends.len()), (4, 0, 0), "{state:?}");
    }

    #[test]
    fn small_jobs_neither_delay_a_large_one_forever_nor_wait_for_two() {
        let turns = Turns::new(2, 10 * LARGE);
        let mut running = vec![poll(pin!(turns.take(1, 10))).unwrap(), poll(pin!(turns.take(1, 10))).unwrap()];
        let mut large = Box::pin(turns.take(2, LARGE));
        let mut small: Vec<_> = (0..2).map(|_| Box::pin(turns.take(1, 10))).collect();
        assert!(poll(large.as_mut()).is_none() && poll(small[0].as_mut()).is_none());
        running.remove(0);
        let first = poll(large.as_mut()).unwrap();
        running.remove(0);
        let mut second = Box::pin(turns.take(3, LARGE));
        assert!(poll(second.as_mut()).is_none(), "one thread remains for small jobs");
        drop(poll(small[0].as_mut()).unwrap());
        drop(poll(small[1].as_mut()).unwrap());
        drop(first);
        assert!(poll(second.as_mut()).is_some());
    }

    #[test]
    fn accounts_that_no_longer_matter_are_removed() {
        let turns = Turns::new(2, LARGE);
        let _running = [poll(pin!(turns.take(0, 1))).unwrap(), poll(pin!(turns.take(0, 1))).unwrap()];
        let waiting = Box::pin(turns.take(0, 1));
        let mut waiting = waiting;
        assert!(poll(waiting.as_mut()).is_none());
        for account in 1..10_000 {
            assert!(poll(pin!(turns.take(account, 0))).is_none());
        }
        assert!(turns.lock().ends.len() < 2 * MIN_CLEANUP, "{}", turns.lock().ends.len());
    }

    #[test]
    fn a_dropped_job_leaves_the_queue() {
        let turns = Turns::new(2, LARGE);
        let running = [poll(pin!(turns.take(1, 1))).unwrap(), poll(pin!(turns.take(1, 1))).unwrap()];
        let mut gone = Box::pin(turns.take(1, 1));
        let mut begun = Box::pin(turns.take(1, 1));
        assert!(poll(gone.as_mut()).is_none() && poll(begun.as_mut()).is_none());
        drop(gone);
        assert_eq!(turns.lock().small.len(), 1);
        drop(running);
        // The job has begun, but its client has disconnected.
        drop(begun);
        let state = turns.lock();
        assert_eq!((state.free_threads, state.small.len()), (2, 0), "{state:?}");
    }
}
