//! Tensor-parallel groups in which a rank fails in the middle of a forward pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use surprisal_engine::{Communicator, RankLost, ThreadCommunicator};

/// A fault that makes rank 1 fail once, at a given sum or exchange.
#[derive(Clone, Debug)]
pub struct Fault {
    left: Arc<AtomicUsize>,
    panics: bool,
}

impl Fault {
    /// Creates a fault at rank 1's `at`-th sum or exchange: the rank's thread panics if `panics` is `true`, otherwise
    /// only the rank's device fails.
    pub fn new(at: usize, panics: bool) -> Self {
        Self { left: Arc::new(AtomicUsize::new(at)), panics }
    }

    /// Returns the communicators of a group. Groups work without faults once the fault has occurred.
    pub fn group(&self, size: usize) -> Vec<Box<dyn Communicator>> {
        let faulty = |inner| Box::new(FaultyCommunicator { inner, fault: self.clone() }) as _;
        ThreadCommunicator::group(size).into_iter().map(faulty).collect()
    }
}

/// A communicator that fails when its fault occurs.
#[derive(Debug)]
struct FaultyCommunicator {
    inner: ThreadCommunicator,
    fault: Fault,
}

impl FaultyCommunicator {
    /// Counts a sum or an exchange, and fails if it is the one with the fault.
    fn count(&self) -> Result<(), RankLost> {
        if self.rank() != 1 || self.fault.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return Ok(());
        }
        assert!(!self.fault.panics, "injected fault");
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
