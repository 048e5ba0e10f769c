//! The queries of one request.

/// A query for the log-probabilities of `target` after `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The tokens before the target.
    pub context: &'a [u32],
    /// The tokens to score.
    pub target: &'a [u32],
}

/// The queries of one request, in one of the two forms that a surprisal server accepts. Other servers get one prompt
/// per query.
#[derive(Clone, Debug)]
pub enum Batch<'a> {
    /// Separate queries, each with a context and a target.
    Queries {
        /// The queries.
        queries: Vec<Query<'a>>,
        /// The token before every context. If `None`, a surprisal server adds its model's BOS; other servers add none.
        bos: Option<u32>,
    },
    /// Queries that share contexts and targets. The token sequences are complete: no server adds a BOS.
    Pairs {
        /// The contexts; none is empty.
        contexts: &'a [Vec<u32>],
        /// The targets to score.
        targets: &'a [Vec<u32>],
        /// The indices `[context, target]` of each query.
        pairs: &'a [[usize; 2]],
    },
}

impl<'a> Batch<'a> {
    /// Returns the queries, in the order of their results.
    pub fn queries(&self) -> Vec<Query<'a>> {
        match self {
            Self::Queries { queries, .. } => queries.clone(),
            Self::Pairs { contexts, targets, pairs } => {
                pairs.iter().map(|&[i, j]| Query { context: &contexts[i], target: &targets[j] }).collect()
            }
        }
    }

    /// Returns the token before every context; `None` if the batch has none.
    pub fn bos(&self) -> Option<u32> {
        match self {
            Self::Queries { bos, .. } => *bos,
            Self::Pairs { .. } => None,
        }
    }

    /// Returns each query as one sequence: the token before the context, if any; the context; and the target.
    pub(crate) fn prompts(&self) -> Vec<Vec<u32>> {
        let bos = self.bos();
        let prompt = |Query { context, target }: Query<'_>| bos.iter().chain(context).chain(target).copied().collect();
        self.queries().into_iter().map(prompt).collect()
    }
}
