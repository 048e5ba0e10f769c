//! Code shared by the benchmarks. The benchmarks are in `benches/`, comparisons with other engines in `peers/`, and
//! recorded results in `results/`.

pub mod gpu;
pub mod prefill;

use surprisal_tests::tiny::TinyLlama;

/// The small model of the CPU comparisons: 137 million parameters.
pub const MODEL: TinyLlama = TinyLlama {
    vocab: 32000,
    hidden: 768,
    intermediate: 2048,
    layers: 12,
    heads: 12,
    kv_heads: 4,
    head_dim: 64,
    tied: false,
    max_positions: 32768,
};
