//! The kernels' sources and images, built into the crate.

/// The headers that kernels include, by name; a header includes none that comes after it.
pub const HEADERS: [(&str, &str); 2] =
    [("port.cuh", include_str!("../port.cuh")), ("attention_tile.cuh", include_str!("../attention_tile.cuh"))];

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name, without the ending.
    pub file: &'static str,
    /// CUDA C++ that includes some of [`HEADERS`].
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
