//! Statistics of a row's logits over the vocabulary, merged in order from chunks and then from ranks, and the score
//! computed from them.

use std::cmp::Ordering;

use super::chunk_stats::{ChunkDetails, ChunkStats, LogSumExp, Target};
use crate::backend::TokenScore;
use crate::scorer::PositionDetails;

/// Statistics of a row over the whole vocabulary, or a rank's slice of it.
///
/// Sums are kept per chunk until all chunks are available, so that they are added in the same order for any number of
/// ranks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VocabStats {
    sums: Vec<ChunkSums>,
    target_logit: Option<f32>,
    greater: u32,
    top: Vec<(u32, f32)>,
}

/// The sums of one chunk, or of all chunks, in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ChunkSums {
    max: f32,
    sum: f64,
    weighted: f64,
    subset: LogSumExp,
}

impl ChunkSums {
    /// Merges all chunks, in order.
    fn merge(chunks: &[Self]) -> Self {
        let max = chunks.iter().map(|chunk| chunk.max).fold(f32::NEG_INFINITY, f32::max);
        // H = ln sum - E[logit - max], with each chunk's own maximum replaced by the row's.
        let weighted = |chunk: &Self| {
            let shift = f64::from(chunk.max - max);
            shift.exp() * (chunk.weighted + chunk.sum * shift)
        };
        Self {
            max,
            sum: chunks.iter().map(|chunk| chunk.sum * f64::from(chunk.max - max).exp()).sum(),
            weighted: chunks.iter().map(weighted).sum(),
            subset: chunks.iter().map(|chunk| chunk.subset).fold(LogSumExp::default(), LogSumExp::merge),
        }
    }
}

impl VocabStats {
    /// Merges a row's chunks, in order.
    pub(super) fn merge_chunks<'a>(chunks: impl IntoIterator<Item = &'a ChunkStats>) -> Self {
        let none = ChunkDetails::default();
        let mut merged = Self::default();
        for chunk in chunks {
            let details = chunk.details.as_deref().unwrap_or(&none);
            let (weighted, subset) = (details.weighted, details.subset);
            merged.sums.push(ChunkSums { max: chunk.max, sum: f64::from(chunk.sum), weighted, subset });
            merged.add(chunk.target_logit, details.greater, &details.top);
        }
        merged.sort_top()
    }

    /// Merges the slices of all ranks, in order.
    pub(super) fn merge_ranks(ranks: impl IntoIterator<Item = Self>) -> Self {
        let mut merged = Self::default();
        for rank in ranks {
            merged.sums.extend_from_slice(&rank.sums);
            merged.add(rank.target_logit, rank.greater, &rank.top);
        }
        merged.sort_top()
    }

    fn add(&mut self, target_logit: Option<f32>, greater: u32, top: &[(u32, f32)]) {
        self.target_logit = self.target_logit.or(target_logit);
        self.greater += greater;
        self.top.extend_from_slice(top);
    }

    /// Sorts the greatest logits. The sort is stable: of equal logits, the one with the smaller id comes first and
    /// stays first.
    fn sort_top(mut self) -> Self {
        self.top.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal));
        self
    }

    /// Serializes the statistics for other ranks. The length depends only on the chunks and the target's options.
    pub(super) fn to_numbers(&self, target: &Target) -> Vec<f64> {
        let mut numbers = vec![self.target_logit.map_or(f64::NAN, f64::from), f64::from(self.greater)];
        let top = self.top.iter().map(|&(id, logit)| [f64::from(id), f64::from(logit)]);
        let padding = std::iter::repeat([f64::NAN; 2]);
        numbers.extend(top.chain(padding).take(target.options.top.into()).flatten());
        for sums in &self.sums {
            numbers.extend([f64::from(sums.max), sums.sum, sums.weighted, f64::from(sums.subset.max), sums.subset.sum]);
        }
        numbers
    }

    /// Reads the next statistics from the numbers of a rank with `chunks` chunks. Missing numbers become NaN.
    pub(super) fn from_numbers(target: &Target, chunks: usize, numbers: &mut impl Iterator<Item = f64>) -> Self {
        let mut next = || numbers.next().unwrap_or(f64::NAN);
        let (target_logit, greater) = (next(), next());
        let top: Vec<_> = (0..target.options.top).map(|_| (next(), next())).filter(|(id, _)| !id.is_nan()).collect();
        let mut sums = || {
            let (max, sum, weighted) = (next() as f32, next(), next());
            ChunkSums { max, sum, weighted, subset: LogSumExp { max: next() as f32, sum: next() } }
        };
        Self {
            sums: (0..chunks).map(|_| sums()).collect(),
            target_logit: (!target_logit.is_nan()).then_some(target_logit as f32),
            greater: greater as u32,
            top: top.into_iter().map(|(id, logit)| (id as u32, logit as f32)).collect(),
        }
    }

    /// Scores the target from the statistics of the whole vocabulary.
    pub(super) fn score(self, target: &Target) -> TokenScore {
        let sums = ChunkSums::merge(&self.sums);
        let (max, sum) = (f64::from(sums.max), sums.sum);
        let logprob = |logit: f32| (f64::from(logit) - max - sum.ln()) as f32;
        let options = &target.options;
        let position = (!options.is_empty()).then(|| {
            let top = self.top.into_iter().take(options.top.into());
            Box::new(PositionDetails {
                rank: options.rank.then_some(1 + self.greater),
                entropy: options.entropy.then(|| (sum.ln() - sums.weighted / sum) as f32),
                // Rounding must not raise a subset's probability above 1.
                subset: options.subset.as_ref().map(|_| {
                    let LogSumExp { max: subset_max, sum: subset_sum } = sums.subset;
                    ((f64::from(subset_max) - max - sum.ln() + subset_sum.ln()) as f32).min(0.0)
                }),
                top: top.map(|(id, logit)| (id, logprob(logit))).collect(),
            })
        });
        TokenScore { token: target.token, logprob: logprob(self.target_logit.unwrap_or(f32::NAN)), position }
    }
}
