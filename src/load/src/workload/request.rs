//! One request, and the class of its latency.

use serde::{Deserialize, Serialize};

/// A class of requests whose latencies are reported together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatencyClass {
    /// A request of batch work, where no user waits for an individual answer.
    #[default]
    Bulk,
    /// A request whose user waits for the answer.
    Interactive,
}

/// One request for the log-probabilities of targets given contexts, as token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairRequest {
    /// Contexts, each of at least one token.
    pub contexts: Vec<Vec<u32>>,
    /// Targets to score, each of at least one token.
    pub targets: Vec<Vec<u32>>,
    /// Queries as indices `[context, target]`, in the order of the response's results.
    pub pairs: Vec<[usize; 2]>,
    /// Class of the latency.
    pub class: LatencyClass,
}

impl PairRequest {
    /// Returns a request that pairs every context with every target.
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
