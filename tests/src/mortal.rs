//! Ranks of which one is lost in the middle of its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use surprisal_engine::{Communicator, RankLost, ThreadCommunicator};

/// A group of threads whose rank 1 comes to an end when it has asked for so many things, once.
#[derive(Clone, Debug)]
pub struct Fault {
    left: Arc<AtomicUsize>,
    panics: bool,
}

impl Fault {
    /// At rank 1's `at`-th sum or exchange its thread panics, or its device fails it alone.
    pub fn new(at: usize, panics: bool) -> Self {
        Self { left: Arc::new(AtomicUsize::new(at)), panics }
    }

    /// The ends of a group, whole again once the fault has been.
    pub fn group(&self, size: usize) -> Vec<Box<dyn Communicator>> {
        let mortal = |inner| Box::new(Mortal { inner, fault: self.clone() }) as _;
        ThreadCommunicator::group(size).into_iter().map(mortal).collect()
    }
}

#[derive(Debug)]
struct Mortal {
    inner: ThreadCommunicator,
    fault: Fault,
}

impl Mortal {
    fn live(&self) -> Result<(), RankLost> {
        if self.rank() != 1 || self.fault.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return Ok(());
        }
        assert!(!self.fault.panics, "a fault is injected");
        Err(RankLost { rank: 1, size: self.size() })
    }
}

impl Communicator for Mortal {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn all_reduce(&mut self, values: &mut [f32], terms: Vec<f32>) -> Result<(), RankLost> {
        self.live()?;
        self.inner.all_reduce(values, terms)
    }

    fn all_gather(&mut self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, RankLost> {
        self.live()?;
        self.inner.all_gather(values)
    }
}
