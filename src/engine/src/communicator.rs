//! `Communicator`: what the ranks of a tensor-parallel group tell each other; and the one between threads of a process.

use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use rayon::prelude::*;

use crate::backend::BackendError;

/// Values that one task adds up.
const TASK_VALUES: usize = 1 << 14;

/// A rank of the group is no more, so nothing can be computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank} of {size} is lost: the model is loaded anew")]
pub struct RankLost {
    /// Which.
    pub rank: usize,
    /// Ranks of the group.
    pub size: usize,
}

impl From<RankLost> for BackendError {
    fn from(lost: RankLost) -> Self {
        Self(lost.to_string())
    }
}

/// One rank's end of a group, all of whose ranks ask for the same things in the same order.
///
/// Whatever is asked for is the same on every rank, to the bit, and the same run to run.
pub trait Communicator: Debug + Send {
    /// This rank, from 0.
    fn rank(&self) -> usize;
    /// Ranks of the group.
    fn size(&self) -> usize;
    /// Adds to `values`, the same on every rank, what each rank gives: whole terms as long as `values`, as many as it has, one
    /// after the other in order of rank.
    ///
    /// # Errors
    /// [`RankLost`], now and ever after, once a rank is gone.
    fn all_reduce(&mut self, values: &mut [f32], terms: Vec<f32>) -> Result<(), RankLost>;
    /// What each rank gives, in order of rank; they may be of different lengths.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    fn all_gather(&mut self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, RankLost>;
}

/// A rank among threads that share memory. Dropping it is that rank's end.
#[derive(Debug)]
pub struct ThreadCommunicator {
    rank: usize,
    /// How many things were asked for.
    asked: usize,
    shared: Arc<Shared>,
}

/// What the threads share. Of each thing asked for, the next one uses the other half of the slots, and the one after that begins when
/// all ranks have come to the next one: so nothing is overwritten that is still being read.
#[derive(Debug)]
struct Shared {
    terms: [Vec<RwLock<Vec<f32>>>; 2],
    parts: [Vec<RwLock<Vec<f64>>>; 2],
    meeting: Mutex<Meeting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Meeting {
    arrived: usize,
    held: u64,
    lost: Option<usize>,
}

impl ThreadCommunicator {
    /// All ranks of a group.
    pub fn group(size: usize) -> Vec<Self> {
        let shared = Arc::new(Shared {
            terms: std::array::from_fn(|_| (0..size).map(|_| RwLock::default()).collect()),
            parts: std::array::from_fn(|_| (0..size).map(|_| RwLock::default()).collect()),
            meeting: Mutex::default(),
            changed: Condvar::new(),
        });
        (0..size).map(|rank| Self { rank, asked: 0, shared: Arc::clone(&shared) }).collect()
    }

    /// Waits until every rank is here.
    fn meet(&self) -> Result<(), RankLost> {
        let size = self.size();
        let lost = |rank| Err(RankLost { rank, size });
        let mut meeting = self.meeting();
        if let Some(rank) = meeting.lost {
            return lost(rank);
        }
        meeting.arrived += 1;
        if meeting.arrived == size {
            (meeting.arrived, meeting.held) = (0, meeting.held + 1);
            self.shared.changed.notify_all();
            return Ok(());
        }
        let this = meeting.held;
        let waiting = |meeting: &mut Meeting| meeting.held == this && meeting.lost.is_none();
        let meeting = self.shared.changed.wait_while(meeting, waiting).unwrap_or_else(PoisonError::into_inner);
        match meeting.lost {
            Some(rank) if meeting.held == this => lost(rank),
            _ => Ok(()),
        }
    }

    fn meeting(&self) -> MutexGuard<'_, Meeting> {
        self.shared.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn half(&mut self) -> usize {
        self.asked += 1;
        self.asked % 2
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
        let half = self.half();
        let slots = &self.shared.terms[half];
        *slots[self.rank].write().unwrap_or_else(PoisonError::into_inner) = terms;
        self.meet()?;
        let ranks: Vec<_> = slots.iter().map(|slot| slot.read().unwrap_or_else(PoisonError::into_inner)).collect();
        let length = values.len().max(1);
        values.par_chunks_mut(TASK_VALUES).enumerate().for_each(|(task, values)| {
            let own = task * TASK_VALUES..task * TASK_VALUES + values.len();
            for term in ranks.iter().flat_map(|terms| terms.chunks_exact(length)) {
                for (sum, value) in values.iter_mut().zip(&term[own.clone()]) {
                    *sum += value;
                }
            }
        });
        Ok(())
    }

    fn all_gather(&mut self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, RankLost> {
        let half = self.half();
        let slots = &self.shared.parts[half];
        *slots[self.rank].write().unwrap_or_else(PoisonError::into_inner) = values;
        self.meet()?;
        Ok(slots.iter().map(|slot| slot.read().unwrap_or_else(PoisonError::into_inner).clone()).collect())
    }
}

impl Drop for ThreadCommunicator {
    fn drop(&mut self) {
        let mut meeting = self.meeting();
        meeting.lost = meeting.lost.or(Some(self.rank));
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Runs a rank's work on a thread each.
    fn on_each<T: Send>(size: usize, work: impl Fn(ThreadCommunicator) -> T + Sync) -> Vec<T> {
        thread::scope(|scope| {
            let ranks = ThreadCommunicator::group(size).into_iter();
            let threads: Vec<_> = ranks.map(|rank| scope.spawn(|| work(rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// The sum in order of values whose sum in another order has other bits, many times over; some ranks have nothing to add.
    #[test]
    fn terms_are_added_in_order_of_rank() {
        for size in [1, 2, 3, 8] {
            let value = |term: usize, round: usize, i: usize| {
                ((term * 7919 + round * 104_729 + i * 31) % 1009) as f32 * [1e-4, 1.0, 1e4][(term + i) % 3]
            };
            // Rank r has r % 3 terms, numbered through.
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
    fn a_lost_rank_is_named_to_whoever_waits_or_comes_later() {
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
            // Those that end after the lost one are lost too, but the first is the one that is named.
            let lost = RankLost { rank: 2, size: 4 };
            assert_eq!((first, second), (Err(lost), Err(lost)));
        }
        assert_eq!(RankLost { rank: 2, size: 4 }.to_string(), "rank 2 of 4 is lost: the model is loaded anew");
    }
}
