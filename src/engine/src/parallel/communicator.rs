//! `Communicator`: the trait for sums and exchanges among the ranks of a tensor-parallel group, and its implementation
//! for threads of one process.

use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use rayon::prelude::*;

use crate::backend::BackendError;

/// Number of sums that one task of an all-reduce computes.
const TASK_VALUES: usize = 1 << 14;

/// The error of a group that can no longer compute because one of its ranks failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank} of {size} is lost; reloading the model")]
pub struct RankLost {
    /// The rank that failed.
    pub rank: usize,
    /// Number of ranks in the group.
    pub size: usize,
}

impl From<RankLost> for BackendError {
    fn from(lost: RankLost) -> Self {
        Self(lost.to_string())
    }
}

/// A rank's connection to its group, for values in host memory.
///
/// All ranks must call the same methods in the same order. Every rank gets the same result, bit for bit, in every run.
pub trait Communicator: Debug + Send {
    /// Returns this rank, from 0.
    fn rank(&self) -> usize;
    /// Returns the number of ranks in the group.
    fn size(&self) -> usize;
    /// Adds the terms of all ranks to `values`, which must be the same on every rank. `terms` contains any number of
    /// terms from this rank, one after another, each as long as `values`. All terms are added one at a time, in rank
    /// order.
    ///
    /// # Errors
    /// Returns [`RankLost`] if a rank has failed during this or an earlier call.
    fn all_reduce(&mut self, values: &mut [f32], terms: Vec<f32>) -> Result<(), RankLost>;
    /// Returns each rank's values, in rank order. Ranks may pass different numbers of values.
    ///
    /// # Errors
    /// Returns the same error as [`all_reduce`](Self::all_reduce).
    fn all_gather(&mut self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, RankLost>;
}

/// A rank's communicator; `None` if the model is not divided.
pub(crate) type RankCommunicator = Option<Box<dyn Communicator>>;

/// The communicator of a rank in a group of threads that share memory. Dropping it marks the rank as lost.
#[derive(Debug)]
pub struct ThreadCommunicator {
    rank: usize,
    /// Number of operations so far.
    operations: usize,
    shared: Arc<Shared>,
}

/// The memory that the threads share.
///
/// Consecutive operations alternate between the two halves of the slots. Each rank writes its slot, waits until all
/// ranks have done so, and reads all slots. So no slot is overwritten while another rank still reads it.
#[derive(Debug)]
struct Shared {
    terms: [Vec<RwLock<Vec<f32>>>; 2],
    gathered: [Vec<RwLock<Vec<f64>>>; 2],
    barrier: Mutex<Barrier>,
    changed: Condvar,
}

/// A barrier that fails once a rank is lost.
#[derive(Debug, Default)]
struct Barrier {
    arrived: usize,
    /// Number of times that all ranks have arrived.
    generation: u64,
    lost: Option<usize>,
}

impl ThreadCommunicator {
    /// Creates the communicators of all ranks of a group, in rank order.
    pub fn group(size: usize) -> Vec<Self> {
        let shared = Arc::new(Shared {
            terms: std::array::from_fn(|_| (0..size).map(|_| RwLock::default()).collect()),
            gathered: std::array::from_fn(|_| (0..size).map(|_| RwLock::default()).collect()),
            barrier: Mutex::default(),
            changed: Condvar::new(),
        });
        (0..size).map(|rank| Self { rank, operations: 0, shared: Arc::clone(&shared) }).collect()
    }

    /// Waits until all ranks have arrived.
    fn wait(&self) -> Result<(), RankLost> {
        let size = self.size();
        let lost = |rank| Err(RankLost { rank, size });
        let mut barrier = self.barrier();
        if let Some(rank) = barrier.lost {
            return lost(rank);
        }
        barrier.arrived += 1;
        if barrier.arrived == size {
            (barrier.arrived, barrier.generation) = (0, barrier.generation + 1);
            self.shared.changed.notify_all();
            return Ok(());
        }
        let generation = barrier.generation;
        let is_waiting = |barrier: &mut Barrier| barrier.generation == generation && barrier.lost.is_none();
        let barrier = self.shared.changed.wait_while(barrier, is_waiting).unwrap_or_else(PoisonError::into_inner);
        match barrier.lost {
            Some(rank) if barrier.generation == generation => lost(rank),
            _ => Ok(()),
        }
    }

    fn barrier(&self) -> MutexGuard<'_, Barrier> {
        self.shared.barrier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the half of the slots that the next operation uses.
    fn next_half(&mut self) -> usize {
        self.operations += 1;
        self.operations % 2
    }
}

impl Communicator for ThreadCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.terms[0].len()
    }

    fn all_reduce(&mut self, values: &mut [f32], terms: Vec<f32>) -> Result<(), RankLost> {
        let half = self.next_half();
        let slots = &self.shared.terms[half];
        *slots[self.rank].write().unwrap_or_else(PoisonError::into_inner) = terms;
        self.wait()?;
        let ranks: Vec<_> = slots.iter().map(|slot| slot.read().unwrap_or_else(PoisonError::into_inner)).collect();
        let length = values.len().max(1);
        values.par_chunks_mut(TASK_VALUES).enumerate().for_each(|(task, values)| {
            let range = task * TASK_VALUES..task * TASK_VALUES + values.len();
            for term in ranks.iter().flat_map(|terms| terms.chunks_exact(length)) {
                for (sum, value) in values.iter_mut().zip(&term[range.clone()]) {
                    *sum += value;
                }
            }
        });
        Ok(())
    }

    fn all_gather(&mut self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, RankLost> {
        let half = self.next_half();
        let slots = &self.shared.gathered[half];
        *slots[self.rank].write().unwrap_or_else(PoisonError::into_inner) = values;
        self.wait()?;
        Ok(slots.iter().map(|slot| slot.read().unwrap_or_else(PoisonError::into_inner).clone()).collect())
    }
}

impl Drop for ThreadCommunicator {
    fn drop(&mut self) {
        let mut barrier = self.barrier();
        barrier.lost = barrier.lost.or(Some(self.rank));
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Runs `work` for each rank on its own thread; returns the results in order of rank.
    fn on_each<T: Send>(size: usize, work: impl Fn(ThreadCommunicator) -> T + Sync) -> Vec<T> {
        thread::scope(|scope| {
            let ranks = ThreadCommunicator::group(size).into_iter();
            let threads: Vec<_> = ranks.map(|rank| scope.spawn(|| work(rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// The bits of the sums depend on the order of the terms. Some ranks have nothing to add.
    #[test]
    fn terms_are_added_in_order_of_rank() {
        for size in [1, 2, 3, 8] {
            let value = |term: usize, round: usize, i: usize| {
                ((term * 7919 + round * 104_729 + i * 31) % 1009) as f32 * [1e-4, 1.0, 1e4][(term + i) % 3]
            };
            // Rank r has r % 3 terms; terms are numbered consecutively across ranks.
            let first = |rank: usize| (0..rank).map(|rank| rank % 3).sum::<usize>();
            let got = on_each(size, |mut rank| {
                let mut all = Vec::new();
                for round in 0..50 {
                    let length = 1 + round * 700;
                    let mut values: Vec<f32> = (0..length).map(|i| value(99, round, i)).collect();
                    let own = first(rank.rank())..first(rank.rank() + 1);
                    let terms = own.flat_map(|term| (0..length).map(move |i| value(term, round, i))).collect();
                    rank.all_reduce(&mut values, terms).unwrap();
                    let parts = rank.all_gather(vec![round as f64; rank.rank() + round % 2]).unwrap();
                    let want: Vec<_> = (0..size).map(|rank| vec![round as f64; rank + round % 2]).collect();
                    assert_eq!(parts, want);
                    all.push(values);
                }
                all
            });
            for (round, values) in got[0].iter().enumerate() {
                for (i, &got) in values.iter().enumerate() {
                    let want = (0..first(size)).fold(value(99, round, i), |sum, term| sum + value(term, round, i));
                    assert_eq!(got.to_bits(), want.to_bits());
                }
            }
            assert!(got.iter().all(|values| values == &got[0]));
        }
    }

    #[test]
    fn current_and_later_calls_report_which_rank_was_lost() {
        let outcomes = on_each(4, |mut rank| {
            let mut values = [0.0; 5];
            rank.all_reduce(&mut values, vec![1.0; 5]).unwrap();
            assert_eq!(values, [4.0; 5]);
            if rank.rank() == 2 {
                return None;
            }
            let first = rank.all_reduce(&mut values, vec![1.0; 5]);
            Some((first, rank.all_gather(vec![1.0])))
        });
        for (rank, outcome) in outcomes.into_iter().enumerate() {
            let Some((first, second)) = outcome else {
                assert_eq!(rank, 2);
                continue;
            };
            // Ranks that end later are lost too, but the error names the first one.
            let lost = RankLost { rank: 2, size: 4 };
            assert_eq!((first, second), (Err(lost), Err(lost)));
        }
        assert_eq!(RankLost { rank: 2, size: 4 }.to_string(), "rank 2 of 4 is lost; reloading the model");
    }
}
