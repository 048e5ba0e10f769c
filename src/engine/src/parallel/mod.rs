//! Tensor parallelism: several ranks compute one model, each with a slice of the weights.
//!
//! Start with [`rank_slice`], which divides the model. Ranks add and exchange values through a [`communicator`].
//! [`group`] runs one backend per rank, each on its own thread, and presents them as one backend.
//!
//! A rank computes its slice of each layer (split as in Megatron-LM: Shoeybi et al., 2019) and of the vocabulary, and
//! caches the keys and values of its own heads. Ranks exchange one sum for the embedding and, in each layer, one after
//! attention and one after the MLP. For the head they exchange a few numbers per row: the target's logit, the maximum
//! and sum of each chunk of about a thousand logits, and the details that the query requests. They exchange full logits
//! only for rows from which tokens are sampled, eight rows at a time. Sums are added in rank order.
//!
//! # Bits
//!
//! On the CPU in f32 and bf16, 2, 4 or 8 ranks compute the same bits as one rank. Sums are computed in blocks of at
//! most 256 terms. A single rank also ends a block wherever the slice of a rank would end in a group of 2, 4 or 8; in
//! models of common sizes, a block of 256 ends there anyway. Ranks send the sum of each block, not the total of their
//! blocks, and these sums are added to the residual stream in the same order as on a single rank. The head's chunks
//! work the same way. Other numbers of ranks, int8 (each rank's weights have their own scales) and other devices
//! compute different bits, and the fingerprint reflects that.
//!
//! # Failure
//!
//! A rank that fails stops, and every rank that waits for it notices. The pass fails with an error that names the rank,
//! and the engine reloads the model.

pub(crate) mod communicator;
pub(crate) mod group;
pub(crate) mod rank_slice;
