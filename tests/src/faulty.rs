//! Ranks of which one fails in the middle of a forward pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use surprisal_engine::{Communicator, RankLost, ThreadCommunicator};

/// A fault of rank 1, which fails once, after some number of sums and exchanges.
#[derive(Clone, Debug)]
pub struct Fault {
    left: Arc<AtomicUsize>,
    panics: bool,
}

impl Fault {
    /// Makes a fault at rank 1's `at`-th sum or exchange: its thread panics, or only its device fails.
    pub fn new(at: usize, panics: bool) -> Self {
        Self { left: Arc::new(AtomicUsize::new(at)), panics }
    }

    /// Returns the communicators of a group; after the fault has occurred, new groups work.
    pub fn group(&self, size: usize) -> Vec<Box<dyn Communicator>> {
        let faulty = |inner| Box::new(FaultyCommunicator { inner, fault: self.clone() }) as _;
        ThreadCommunicator::group(size).into_iter().map(faulty).collect()
    }
}

/// A communicator that fails as its fault says.
#[derive(Debug)]
struct FaultyCommunicator {
    inner: ThreadCommunicator,
    fault: Fault,
}

impl FaultyCommunicator {
    /// Counts a sum or an exchange, and fails if it is the fault's.
    fn count(&self) -> Result<(), RankLost> {
        if self.rank() != 1 || self.fault.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return Ok(());
        }
        assert!(!self.fault.panics, "a fault is injected");
        Err(RankLost { rank: 1, size: self.size() })
    }
}

impl Communicator for FaultyCommunicator {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn all_reduce(&mut self, values: &mut [f32], terms: Vec<f32>) -> Result<(), RankLost> {
        self.count()?;
        self.inner.all_reduce(values, terms)
    }

    fn all_gather(&mut self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, RankLost> {
        self.count()?;
        self.inner.all_gather(values)
    }
}
