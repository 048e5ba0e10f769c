//! One request, and the class its latency is counted in.

use serde::{Deserialize, Serialize};

/// Requests whose latencies are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatencyClass {
    /// Batch work: nobody waits for a single answer.
    #[default]
    Bulk,
    /// Somebody waits for the answer.
    Interactive,
}

/// One request: the log-probabilities of targets given contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairRequest {
    /// The contexts; none is empty.
    pub contexts: Vec<Vec<u32>>,
    /// The targets to score; none is empty.
    pub targets: Vec<Vec<u32>>,
    /// `[context, target]`, in the order of the answer.
    pub pairs: Vec<[usize; 2]>,
    /// The class its latency is counted in.
    pub class: LatencyClass,
}

impl PairRequest {
    /// Pairs every context with every target.
    pub(super) fn all_pairs(contexts: Vec<Vec<u32>>, targets: Vec<Vec<u32>>, class: LatencyClass) -> Self {
        let pairs = (0..contexts.len()).flat_map(|i| (0..targets.len()).map(move |j| [i, j])).collect();
        Self { contexts, targets, pairs, class }
    }

    /// Returns the number of log-probabilities in a complete answer.
    pub fn scored_tokens(&self) -> usize {
        self.pairs.iter().map(|&[_, j]| self.targets[j].len()).sum()
    }

    /// Returns the context and the target of each pair.
    pub fn pair_texts(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.pairs.iter().map(|&[i, j]| (&self.contexts[i][..], &self.targets[j][..]))
    }
}
