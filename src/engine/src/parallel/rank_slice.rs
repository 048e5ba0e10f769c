//! `RankSlice`: the slice of the model that a rank has. The split follows Megatron-LM (Shoeybi et al., 2019), but
//! supports any number of ranks.
//!
//! The projections to queries, keys, values and the MLP's inner activations are divided by output, and so is the
//! vocabulary. The attention output projection and the MLP's down projection are divided by input. So a layer needs two
//! sums over ranks. If there are more ranks than key-value heads, several ranks share a key-value head and divide its
//! query heads.
//!
//! On the CPU, 2, 4 or 8 ranks compute the same bits as one rank, because a single rank also ends its partial sums
//! wherever the slice of a rank would end in a group of 2, 4 or 8. These ends divide a dimension into
//! [pieces](RankSlice::mlp_pieces).

use std::collections::BTreeSet;
use std::ops::Range;

use surprisal_model::LlamaConfig;

/// Number of tokens per group; the vocabulary is divided among ranks in whole groups.
pub(crate) const VOCAB_GRANULE: usize = 32;

/// Group sizes that compute the same bits as one rank.
const BIT_EQUAL_SIZES: [usize; 3] = [2, 4, 8];

/// One rank of a group, and its slice of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RankSlice {
    pub(crate) rank: usize,
    pub(crate) size: usize,
}

impl RankSlice {
    /// The whole model.
    pub(crate) const WHOLE: Self = Self { rank: 0, size: 1 };

    /// Returns the slices of all ranks, in order.
    pub(crate) fn all(size: usize) -> impl Iterator<Item = Self> {
        (0..size).map(move |rank| Self { rank, size })
    }

    /// Returns the fingerprint suffix for results whose bits depend on the number of ranks; empty for a single rank.
    pub(crate) fn fingerprint_suffix(self) -> String {
        if self.size > 1 { format!("-tp{}", self.size) } else { String::new() }
    }

    /// Returns whether a group of this size computes the same bits as one rank.
    pub(crate) fn has_bits_of_one_rank(self) -> bool {
        self.size == 1 || BIT_EQUAL_SIZES.contains(&self.size)
    }

    /// Returns this rank's share of `n` items: contiguous, as even as possible, and empty if there are more ranks than
    /// items.
    fn share_of(self, n: usize) -> Range<usize> {
        n * self.rank / self.size..n * (self.rank + 1) / self.size
    }

    /// Returns this rank's number of threads. `all` is the number of threads of the whole group; 0 means one per core.
    pub(crate) fn threads(self, all: usize) -> usize {
        match (self.size, all) {
            (1, all) => all,
            (_, 0) => (std::thread::available_parallelism().map_or(1, usize::from) / self.size).max(1),
            (_, all) => (all / self.size).max(1),
        }
    }

    /// Returns this rank's columns of the MLP's inner activations.
    pub(crate) fn mlp(self, config: &LlamaConfig) -> Range<usize> {
        self.share_of(config.intermediate_size)
    }

    /// Returns this rank's tokens of the vocabulary.
    pub(crate) fn vocab(self, config: &LlamaConfig) -> Range<usize> {
        let groups = self.vocab_groups(config);
        groups.start * VOCAB_GRANULE..config.vocab_size.min(groups.end * VOCAB_GRANULE)
    }

    /// Returns this rank's groups of [`VOCAB_GRANULE`] tokens.
    fn vocab_groups(self, config: &LlamaConfig) -> Range<usize> {
        self.share_of(config.vocab_size.div_ceil(VOCAB_GRANULE))
    }

    /// Returns [`mlp`](Self::mlp), cut into pieces, in order.
    pub(crate) fn mlp_pieces(self, config: &LlamaConfig) -> Vec<Range<usize>> {
        pieces(self.mlp(config), |slice| slice.mlp(config))
    }

    /// Returns this rank's groups of [`VOCAB_GRANULE`] tokens, cut into pieces, in order.
    pub(crate) fn vocab_pieces(self, config: &LlamaConfig) -> Vec<Range<usize>> {
        pieces(self.vocab_groups(config), |slice| slice.vocab_groups(config))
    }

    /// Returns this rank's query heads, cut into pieces, in order.
    pub(crate) fn head_pieces(self, config: &LlamaConfig) -> Vec<Range<usize>> {
        pieces(self.heads(config).0, |slice| slice.heads(config).0)
    }

    /// Returns this rank's query heads, and the key-value heads that they read.
    pub(crate) fn heads(self, config: &LlamaConfig) -> (Range<usize>, Range<usize>) {
        let (kv_heads, group) = (config.kv_heads, config.heads / config.kv_heads);
        if self.size <= kv_heads {
            let own = self.share_of(kv_heads);
            return (own.start * group..own.end * group, own);
        }
        let kv_head = self.rank * kv_heads / self.size;
        let first_sharer = (kv_head * self.size).div_ceil(kv_heads);
        let sharers = ((kv_head + 1) * self.size).div_ceil(kv_heads) - first_sharer;
        let queries = Self { rank: self.rank - first_sharer, size: sharers }.share_of(group);
        let read = if queries.is_empty() { kv_head..kv_head } else { kv_head..kv_head + 1 };
        (kv_head * group + queries.start..kv_head * group + queries.end, read)
    }
}

/// Cuts a rank's range wherever the slice of a rank begins in a group of 2, 4 or 8.
fn pieces(range: Range<usize>, range_of: impl Fn(RankSlice) -> Range<usize>) -> Vec<Range<usize>> {
    let starts = BIT_EQUAL_SIZES.into_iter().flat_map(RankSlice::all).map(|slice| range_of(slice).start);
    let starts: BTreeSet<usize> = starts.filter(|start| range.contains(start)).chain(range.clone().next()).collect();
    let ends = starts.iter().copied().skip(1).chain([range.end]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(heads: usize, kv_heads: usize) -> LlamaConfig {
        LlamaConfig::parse(&format!(
            r#"{{"architectures":["LlamaForCausalLM"],"vocab_size":77,"hidden_size":{},"intermediate_size":50,
                "num_hidden_layers":1,"num_attention_heads":{heads},"num_key_value_heads":{kv_heads}}}"#,
            heads * 8
        ))
        .unwrap()
    }

    proptest! {
        /// Every query head, column and token belongs to exactly one rank, in order. Each query head is on the same
        /// rank as its key-value head.
        #[test]
        fn slices_make_up_the_whole(kv_heads in 1usize..9, group in 1usize..9, size in 1usize..20) {
            let config = config(kv_heads * group, kv_heads);
            let slices = || RankSlice::all(size);
            let joined = |ranges: Vec<Range<usize>>| ranges.into_iter().flatten().collect::<Vec<_>>();
            prop_assert_eq!(joined(slices().map(|slice| slice.heads(&config).0).collect()), (0..config.heads).collect::<Vec<_>>());
            prop_assert_eq!(joined(slices().map(|slice| slice.vocab(&config)).collect()), (0..77).collect::<Vec<_>>());
            prop_assert_eq!(joined(slices().map(|slice| slice.mlp(&config)).collect()), (0..50).collect::<Vec<_>>());
            for slice in slices() {
                let (queries, keys) = slice.heads(&config);
                let read: BTreeSet<usize> = queries.clone().map(|query| query / group).collect();
                prop_assert_eq!(read.into_iter().collect::<Vec<_>>(), keys.clone().collect::<Vec<_>>());
                prop_assert!(keys.is_empty() || queries.len() % keys.len() == 0);
            }
        }

        /// The pieces of 2, 4 and 8 ranks, joined in order, are those of one rank.
        #[test]
        fn pieces_do_not_depend_on_the_number_of_ranks(kv_heads in 1usize..9, group in 1usize..9) {
            let config = config(kv_heads * group, kv_heads);
            for pieces in [RankSlice::mlp_pieces, RankSlice::vocab_pieces, RankSlice::head_pieces] {
                let whole = pieces(RankSlice::WHOLE, &config);
                prop_assert!(whole.iter().all(|piece| !piece.is_empty()));
                for size in BIT_EQUAL_SIZES {
                    let all: Vec<_> = RankSlice::all(size).flat_map(|slice| pieces(slice, &config)).collect();
                    prop_assert_eq!(&all, &whole, "{} ranks", size);
                }
            }
        }
    }
}
