//! Which part of the model a rank has: Megatron's split (Shoeybi et al., 2019), made for any number of ranks.
//!
//! Queries, keys, values, gates and the vocabulary are divided by outputs; what multiplies their results, by inputs, so that a
//! layer needs two sums over ranks. Ranks beyond the key-value heads share one, and divide its queries.

use std::ops::Range;

use surprisal_model::LlamaConfig;

/// Ranks have whole groups of so many tokens of the vocabulary.
pub(crate) const GROUP_TOKENS: usize = 32;

/// One rank of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) rank: usize,
    pub(crate) size: usize,
}

impl Part {
    /// The whole model.
    pub(crate) const WHOLE: Self = Self { rank: 0, size: 1 };

    /// All ranks' parts, in order.
    pub(crate) fn all(size: usize) -> impl Iterator<Item = Self> {
        (0..size).map(move |rank| Self { rank, size })
    }

    /// For fingerprints: bits depend on how many ranks add up.
    pub(crate) fn suffix(self) -> String {
        if self.size > 1 { format!("-tp{}", self.size) } else { String::new() }
    }

    /// Its own of `n` things: contiguous, as even as can be, and none if there are more ranks.
    fn of(self, n: usize) -> Range<usize> {
        n * self.rank / self.size..n * (self.rank + 1) / self.size
    }

    /// Threads of this rank, of so many for all; 0 means one a core.
    pub(crate) fn threads(self, all: usize) -> usize {
        match (self.size, all) {
            (1, all) => all,
            (_, 0) => (std::thread::available_parallelism().map_or(1, usize::from) / self.size).max(1),
            (_, all) => (all / self.size).max(1),
        }
    }

    /// Columns of the MLP.
    pub(crate) fn mlp(self, config: &LlamaConfig) -> Range<usize> {
        self.of(config.intermediate_size)
    }

    /// Tokens of the vocabulary.
    pub(crate) fn vocab(self, config: &LlamaConfig) -> Range<usize> {
        let groups = self.of(config.vocab_size.div_ceil(GROUP_TOKENS));
        groups.start * GROUP_TOKENS..config.vocab_size.min(groups.end * GROUP_TOKENS)
    }

    /// Query heads, and the key-value heads that they read.
    pub(crate) fn heads(self, config: &LlamaConfig) -> (Range<usize>, Range<usize>) {
        let (kv_heads, group) = (config.kv_heads, config.heads / config.kv_heads);
        if self.size <= kv_heads {
            let own = self.of(kv_heads);
            return (own.start * group..own.end * group, own);
        }
        let own = self.rank * kv_heads / self.size;
        let first = (own * self.size).div_ceil(kv_heads);
        let sharers = ((own + 1) * self.size).div_ceil(kv_heads) - first;
        let queries = Self { rank: self.rank - first, size: sharers }.of(group);
        let read = if queries.is_empty() { own..own } else { own..own + 1 };
        (own * group + queries.start..own * group + queries.end, read)
    }
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
        /// Every head, column and token has one rank, in order, and each query's keys are where it is.
        #[test]
        fn parts_make_up_the_whole(kv_heads in 1usize..9, group in 1usize..9, size in 1usize..20) {
            let config = config(kv_heads * group, kv_heads);
            let parts = || Part::all(size);
            let joined = |ranges: Vec<Range<usize>>| ranges.into_iter().flatten().collect::<Vec<_>>();
            prop_assert_eq!(joined(parts().map(|part| part.heads(&config).0).collect()), (0..config.heads).collect::<Vec<_>>());
            prop_assert_eq!(joined(parts().map(|part| part.vocab(&config)).collect()), (0..77).collect::<Vec<_>>());
            prop_assert_eq!(joined(parts().map(|part| part.mlp(&config)).collect()), (0..50).collect::<Vec<_>>());
            for part in parts() {
                let (queries, keys) = part.heads(&config);
                let read: std::collections::BTreeSet<usize> = queries.clone().map(|query| query / group).collect();
                prop_assert_eq!(read.into_iter().collect::<Vec<_>>(), keys.clone().collect::<Vec<_>>());
                prop_assert!(keys.is_empty() || queries.len() % keys.len() == 0);
            }
        }
    }
}
