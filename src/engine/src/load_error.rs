//! `LoadError`: why a model could not be loaded, on any device.

use crate::backend::{BLOCK_TOKENS, BackendError};

/// Why a model could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Model(#[from] surprisal_model::Error),
    /// The KV cache would hold nothing.
    #[error(
        "the KV cache has {bytes} bytes, but one block of {BLOCK_TOKENS} tokens takes {block}; give it more memory"
    )]
    CacheTooSmall {
        /// Bytes offered.
        bytes: usize,
        /// Bytes of one block.
        block: usize,
    },
    /// The machine does not give the KV cache its memory.
    #[error(
        "cache_mib is {} ({:.1} GiB), but it could not be allocated; lower it",
        *bytes >> 20, *bytes as f64 / (1_u64 << 30) as f64
    )]
    CacheTooLarge {
        /// The requested bytes.
        bytes: usize,
    },
    /// The machine lacks them.
    #[error("the instructions {0} were asked for, which this machine does not have")]
    Instructions(String),
    /// The device's kernels do not take the model.
    #[error("{field} is {value}, but on this device it must be {limit}")]
    Unsupported {
        /// The field of config.json.
        field: &'static str,
        /// Its value.
        value: usize,
        /// Its allowed values.
        limit: &'static str,
    },
    /// The device's memory does not hold the model.
    #[error(
        "the model takes {needed} bytes of the device's memory ({weights} of weights), but {free} are free; \
         lower the longest sequence or the token budget, or take a larger device"
    )]
    DeviceMemory {
        /// Bytes of all but the KV cache, and of the cache's least.
        needed: usize,
        /// Bytes of weights among them.
        weights: usize,
        /// Bytes to be had.
        free: usize,
    },
    /// A block of the device's threads may not have the shared memory that attention takes.
    #[error(
        "attention over heads of {head_dim} takes {needed} bytes of shared memory, but a block on this device has {limit}; \
         take another device"
    )]
    SharedMemory {
        /// The field of config.json.
        head_dim: usize,
        /// Bytes that a block takes.
        needed: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// The device failed, or there is none.
    #[error(transparent)]
    Device(#[from] BackendError),
    /// The threads could not be started.
    #[error("the compute threads could not be started: {0}")]
    Threads(String),
}
