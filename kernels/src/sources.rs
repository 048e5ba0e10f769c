//! The kernels' sources and images, built into the crate.

/// Names and texts of the headers that kernels include. A header includes only headers earlier in this list.
pub const HEADERS: [(&str, &str); 2] =
    [("port.cuh", include_str!("../port.cuh")), ("attention_tile.cuh", include_str!("../attention_tile.cuh"))];

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The file's name, without extension.
    pub file: &'static str,
    /// CUDA C++ that includes some of [`HEADERS`].
    pub text: &'static str,
    /// The names of the file's kernels.
    pub kernels: &'static [&'static str],
}

macro_rules! source {
    ($file:literal, $($kernel:literal),+) => {
        Source { file: $file, text: include_str!(concat!("../", $file, ".cu")), kernels: &[$($kernel),+] }
    };
}

/// The sources of all kernels, which NVRTC compiles if there is no built-in image for the GPU.
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
    // Only for tests, which use the shim.
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

/// The kernels' images by file, for sm_80, sm_90a and sm_100; empty if nvcc was not available at build time.
pub const FATBINS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));
