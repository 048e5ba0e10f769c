//! CUDA kernels, the Rust that launches them, and the CPU shim that runs them in tests.
//!
//! The `.cu` files are plain CUDA C++ that include only `port.cuh`. On a machine without a GPU the same files are compiled
//! as C++: one CUDA thread is one fiber, and a launch checks what a GPU would leave unchecked.
//!
//! Each kernel has one struct, laid out as its parameter, whose `launch` checks the shape and computes grid, block and
//! shared memory. A [`Launch`] runs on any [`Device`]: `cpu::Cpu` here (feature `shim`), `cuda::Module` where there is a GPU (feature
//! `cuda`, which needs no toolkit to build and no driver to start).
//!
//! No sum depends on the batch: a row's bits follow from its values, and a query's from its position and its keys.

pub mod attention;
#[cfg(feature = "shim")]
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
mod error;
pub mod logprobs;
#[cfg(feature = "cuda")]
pub mod nvrtc;
pub mod rows;

pub use device::{Address, CacheView, Device, Launch, TensorMap};
pub use error::Error;

/// What every kernel includes.
pub const HEADER: (&str, &str) = ("port.cuh", include_str!("../port.cuh"));

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name, without the ending.
    pub file: &'static str,
    /// CUDA C++ that includes [`HEADER`].
    pub text: &'static str,
    /// The kernels in it.
    pub kernels: &'static [&'static str],
}

macro_rules! source {
    ($file:literal, $($kernel:literal),+) => {
        Source { file: $file, text: include_str!(concat!("../", $file, ".cu")), kernels: &[$($kernel),+] }
    };
}

/// Every kernel's source: what NVRTC compiles where no image fits.
pub const SOURCES: &[Source] = &[
    source!("embedding", "embedding"),
    source!("fp8", "fp8_quantize", "fp8_scale"),
    source!(
        "kv_cache",
        "kv_cache_d64",
        "kv_cache_d96",
        "kv_cache_d128",
        "kv_cache_d256",
        "kv_cache_fp8_d64",
        "kv_cache_fp8_d96",
        "kv_cache_fp8_d128",
        "kv_cache_fp8_d256"
    ),
    source!("logprobs", "logprobs_target", "logprobs_tile", "logprobs_combine"),
    source!(
        "paged_attention",
        "paged_attention_d64",
        "paged_attention_d96",
        "paged_attention_d128",
        "paged_attention_d256",
        "paged_attention_fp8_d64",
        "paged_attention_fp8_d96",
        "paged_attention_fp8_d128",
        "paged_attention_fp8_d256",
        "paged_attention_wgmma_d64",
        "paged_attention_wgmma_d128",
        "paged_attention_wgmma_tma_d64",
        "paged_attention_wgmma_tma_d128"
    ),
    source!(
        "paged_decode",
        "paged_decode_d64",
        "paged_decode_d96",
        "paged_decode_d128",
        "paged_decode_d256",
        "paged_decode_fp8_d64",
        "paged_decode_fp8_d96",
        "paged_decode_fp8_d128",
        "paged_decode_fp8_d256",
        "paged_decode_combine"
    ),
    source!("rank_sum", "rank_sum"),
    source!("rms_norm", "rms_norm"),
    source!("silu_mul", "silu_mul"),
    // For tests, which have the shim.
    #[cfg(feature = "shim")]
    source!(
        "wrappers",
        "wrapper_mma",
        "wrapper_ldmatrix",
        "wrapper_reduce",
        "wrapper_convert",
        "wrapper_tma_wgmma",
        "wrapper_wgmma"
    ),
];

/// The kernels' images by file, for sm_80, sm_90a and sm_100; empty if there was no nvcc when this was built.
pub const FATBINS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));
