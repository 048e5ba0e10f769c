//! Tensor parallelism: several ranks compute one model, each with its slice of the weights.
//!
//! Start with [`rank_slice`], which says how the model is divided. [`communicator`] is how ranks add up and exchange values, and
//! [`group`] runs one backend per rank on a thread of its own and presents them all as one backend.

pub(crate) mod communicator;
pub(crate) mod group;
pub(crate) mod rank_slice;
