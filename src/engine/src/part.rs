//! Which part of the model a rank has: Megatron's split (Shoeybi et al., 2019), made for any number of ranks.
//!
//! Queries, keys, values, gates and the vocabulary are divided by outputs; what multiplies their results, by inputs, so that a
//! layer needs two sums over ranks. Ranks beyond the key-value heads share one, and divide its queries.
//!
//! On the CPU 2, 4 or 8 ranks have the bits of one, because one also ends its partial sums wherever one of theirs ends: at the
//! [pieces](Part::mlp_pieces) of what is divided.

use std::collections::BTreeSet;
use std::ops::Range;

use surprisal_model::LlamaConfig;

/// Ranks have whole groups of so many tokens of the vocabulary.
pub(crate) const GROUP_TOKENS: usize = 32;

/// Groups of so many ranks have one rank's bits.
const NESTED: [usize; 3] = [2, 4, 8];

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

    /// For fingerprints, where bits depend on how many ranks add up.
    pub(crate) fn suffix(self) -> String {
        if self.size > 1 { format!("-tp{}", self.size) } else { String::new() }
    }

    /// Whether its pieces are one rank's.
    pub(crate) fn is_nested(self) -> bool {
        self.size == 1 || NESTED.contains(&self.size)
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

    /// [`mlp`](Self::mlp) in pieces, in order.
    pub(crate) fn mlp_pieces(self, config: &LlamaConfig) -> Vec<Range<usize>> {
        pieces(self.mlp(config), |part| part.mlp(config))
    }

    /// Groups of 32 tokens of the vocabulary, in pieces.
    pub(crate) fn vocab_pieces(self, config: &LlamaConfig) -> Vec<Range<usize>> {
        let groups = |part: Self| part.of(config.vocab_size.div_ceil(GROUP_TOKENS));
        pieces(groups(self), groups)
    }

    /// Query heads in pieces.
    pub(crate) fn head_pieces(self, config: &LlamaConfig) -> Vec<Range<usize>> {
        pieces(self.heads(config).0, |part| part.heads(config).0)
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

/// What a rank has, cut wherever a part of 2, 4 or 8 ranks begins.
fn pieces(own: Range<usize>, of: impl Fn(Part) -> Range<usize>) -> Vec<Range<usize>> {
    let begins = NESTED.into_iter().flat_map(Part::all).map(|part| of(part).start);
    let inside: BTreeSet<usize> = begins.filter(|at| own.contains(at)).chain(own.clone().next()).collect();
    let ends = inside.iter().copied().skip(1).chain([own.end]);
    inside.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
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
                let read: BTreeSet<usize> = queries.clone().map(|query| query / group).collect();
                prop_assert_eq!(read.into_iter().collect::<Vec<_>>(), keys.clone().collect::<Vec<_>>());
                prop_assert!(keys.is_empty() || queries.len() % keys.len() == 0);
            }
        }

        /// The pieces of 2, 4 and 8 ranks are those of one, in order.
        #[test]
        fn pieces_are_the_same_however_many_ranks_have_them(kv_heads in 1usize..9, group in 1usize..9) {
            let config = config(kv_heads * group, kv_heads);
            for pieces in [Part::mlp_pieces, Part::vocab_pieces, Part::head_pieces] {
                let whole = pieces(Part::WHOLE, &config);
                prop_assert!(whole.iter().all(|piece| !piece.is_empty()));
                for size in NESTED {
                    let all: Vec<_> = Part::all(size).flat_map(|part| pieces(part, &config)).collect();
                    prop_assert_eq!(&all, &whole, "{} ranks", size);
                }
            }
        }
    }
}
