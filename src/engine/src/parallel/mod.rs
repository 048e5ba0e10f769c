//! Tensor parallelism: several ranks compute one model, each with its slice of the weights.
//!
//! Start with [`rank_slice`], which says how the model is divided. [`communicator`] is how ranks add up and exchange values, and
//! [`group`] runs one backend per rank on a thread of its own and presents them all as one backend.
//!
//! A rank computes a slice of the model (Megatron-LM's split: Shoeybi et al., 2019), its heads of the cache and its slice of the
//! vocabulary. Ranks exchange a sum after attention, one after the MLP and one for the embedding; of the head, a few numbers a row: the
//! target's logit, maximum and sum of every thousand logits, and what else the query asks for. They never exchange logits, except for
//! the eight rows at a time from which tokens are sampled. Sums are added in order of rank.
//!
//! # Bits
//!
//! On the CPU in f32 and bf16, 2, 4 or 8 ranks have the bits of one. One rank ends its blocks of a sum where a slice of 2, 4 or 8 ranks
//! ends; in models of the usual sizes a block of 256 ends there anyway. Ranks send each block's sum, not their total, to be added to the
//! residual stream in the order of one rank. The head's chunks work alike. Other numbers of ranks, int8 (a rank's weights have
//! their own scales) and devices have other bits, and the fingerprint says so.
//!
//! # Failure
//!
//! A rank that fails stops, and every rank that waits for it notices. The pass fails, the error names the rank, and the engine reloads
//! the model.

pub(crate) mod communicator;
pub(crate) mod group;
pub(crate) mod rank_slice;
