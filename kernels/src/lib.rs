//! CUDA kernels, the Rust that launches them, and the CPU shim that runs them in tests.
//!
//! The `.cu` files are plain CUDA C++ that include only `port.cuh`. On a machine without a GPU the same files are compiled
//! as C++: one CUDA thread is one fiber, and a launch checks what a GPU would leave unchecked.
//!
//! Each kernel has one struct, laid out as its parameter, whose `launch` checks the shape and computes grid, block and
//! shared memory. A [`Launch`] runs on any [`Device`]: [`cpu::Cpu`] here, `cuda::Module` where there is a GPU (feature
//! `cuda`, which needs no toolkit to build and no driver to start).
//!
//! No sum depends on the batch: a row's bits follow from its values, and a query's from its position and its keys.

pub mod attention;
pub mod cpu;

mod device;
mod error;
pub mod logprobs;

pub mod rows;

pub use device::{Address, Device, Launch};
pub use error::Error;

/// What every kernel includes.
pub const HEADER: (&str, &str) = ("port.cuh", include_str!("../port.cuh"));

/// The kernels' sources by file: what NVRTC compiles where no image fits.
pub const SOURCES: [(&str, &str); 8] = [
    ("embedding", include_str!("../embedding.cu")),
    ("fp8", include_str!("../fp8.cu")),
    ("kv_cache", include_str!("../kv_cache.cu")),
    ("logprobs", include_str!("../logprobs.cu")),
    ("paged_attention", include_str!("../paged_attention.cu")),
    ("paged_decode", include_str!("../paged_decode.cu")),
    ("rms_norm", include_str!("../rms_norm.cu")),
    ("silu_mul", include_str!("../silu_mul.cu")),
];

/// The kernels' images by file, for sm_80, sm_90a and sm_100; empty if there was no nvcc when this was built.
pub const FATBINS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));
