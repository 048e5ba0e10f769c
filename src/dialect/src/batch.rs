//! Queries that go into one request.

/// One query: the log-probabilities of `target` after `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The tokens before the target.
    pub context: &'a [u32],
    /// The tokens to score.
    pub target: &'a [u32],
}

/// The queries of one request, in one of the two forms that a surprisal server takes. Other servers get a prompt a query.
#[derive(Clone, Debug)]
pub enum Batch<'a> {
    /// Each query has a context and a target of its own.
    Queries {
        /// The queries.
        queries: Vec<Query<'a>>,
        /// The token before every context. Without one, a surprisal server adds its model's own; other servers add none.
        bos: Option<u32>,
    },
    /// Queries share contexts and targets. The texts are complete: no server adds a BOS.
    Pairs {
        /// The contexts; none is empty.
        contexts: &'a [Vec<u32>],
        /// The targets to score.
        targets: &'a [Vec<u32>],
        /// `[context, target]` of each query.
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

    /// Returns the token before every context, if the batch has one.
    pub fn bos(&self) -> Option<u32> {
        match self {
            Self::Queries { bos, .. } => *bos,
            Self::Pairs { .. } => None,
        }
    }

    /// Returns each query as one text: BOS, context and target.
    pub(crate) fn prompts(&self) -> Vec<Vec<u32>> {
        let bos = self.bos();
        let prompt = |Query { context, target }: Query<'_>| bos.iter().chain(context).chain(target).copied().collect();
        self.queries().into_iter().map(prompt).collect()
    }
}
