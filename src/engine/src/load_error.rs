//! `LoadError`: the reasons a model cannot be loaded, on any device.

use crate::backend::{BLOCK_TOKENS, BackendError};

/// The reason a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Model(#[from] surprisal_model::Error),
    /// The KV cache is too small for one block.
    #[error("the KV cache has {bytes} bytes, but one block of {BLOCK_TOKENS} tokens needs {block}; raise cache_mib")]
    CacheTooSmall {
        /// Bytes available to the KV cache.
        bytes: usize,
        /// Bytes of one block.
        block: usize,
    },
    /// The machine cannot allocate the KV cache.
    #[error(
        "cache_mib is {} ({:.1} GiB), but that much memory could not be allocated; lower it",
        *bytes >> 20, *bytes as f64 / (1_u64 << 30) as f64
    )]
    CacheTooLarge {
        /// Requested bytes.
        bytes: usize,
    },
    /// The machine lacks the requested vector instructions.
    #[error("this machine does not support the requested instructions: {0}")]
    Instructions(String),
    /// The device's kernels do not support the model.
    #[error("{field} is {value}, but on this device it must be {limit}")]
    Unsupported {
        /// The field of config.json.
        field: &'static str,
        /// The field's value.
        value: usize,
        /// The field's allowed values.
        limit: &'static str,
    },
    /// The model does not fit in the device's memory.
    #[error(
        "the model needs {needed} bytes of the device's memory ({weights} for the weights), but only {free} are free; \
         lower max_length or token_budget, or use a device with more memory"
    )]
    DeviceMemory {
        /// Bytes of the weights, the workspace and one KV block.
        needed: usize,
        /// Bytes of the weights.
        weights: usize,
        /// Bytes available: the free memory minus a reserve.
        free: usize,
    },
    /// Attention needs more shared memory than the device allows a thread block.
    #[error(
        "attention with head_dim {head_dim} needs {needed} bytes of shared memory, but a thread block on this \
         device has {limit}; use another device"
    )]
    SharedMemory {
        /// The model's `head_dim`, from config.json.
        head_dim: usize,
        /// Bytes that a thread block needs.
        needed: usize,
        /// Bytes that the device allows a thread block.
        limit: usize,
    },
    /// The device failed, or none is available.
    #[error(transparent)]
    Device(#[from] BackendError),
    /// The threads could not be started.
    #[error("could not start the compute threads: {0}")]
    Threads(String),
}
