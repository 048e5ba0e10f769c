//! The CPU backend: a Llama with a paged KV cache.
//!
//! Start with [`backend`], which loads a model and runs batches. [`llama`] is the forward pass, [`attention`] and
//! [`head`] are its two large steps, and [`gemm`] is the matrix product that they use. Activations are
//! [`panel_matrix`]es, weights are [`packed_matrix`]es.
//!
//! # Same query, same bits
//!
//! A log-probability depends only on its token and the tokens before it, because no sum depends on anything else:
//!
//! - Products ([`gemm`]): each element is a chain of fused multiply-adds over the depth, in blocks of at most 256,
//!   regardless of the tile, the vector width and the thread. bf16 and int8 weights ([`packed_matrix`]) are read as the
//!   f32 values that they represent. Products of bf16 pairs ([`gemm_bf16`]) also have a fixed order, but they round as
//!   the instruction does, so the fingerprint names the instruction.
//! - Attention ([`attention`]; [`softmax`] handles a single block): each query row walks its blocks in order of
//!   position and reads no slot after its own.
//! - The head ([`head`]): vocabulary chunks have a fixed size and are combined in order, in f64.
//!
//! Products, norms and softmax are written once, with the vector types of the crate `pulp`. Matrices are stored in
//! panels of 32 columns: this way, tasks write disjoint contiguous memory without `unsafe`, and a KV block of 32 keys
//! is one panel of a product. A pass is about a hundred parallel loops with single-threaded steps between them;
//! [`pool`] keeps all threads awake throughout.
//!
//! Rotary frequencies and angles are rounded to f32 as in transformers, because checkpoints are trained with that
//! rounding. With dynamic NTK scaling, a token's key would depend on the length of its whole text, so the engine
//! rejects sequences longer than the trained length.

mod attention;
mod backend;
mod compute;
mod config;
mod gemm;
mod gemm_bf16;
mod head;
mod instructions;
mod kernel_bench;
mod kv;
mod linear;
mod llama;
mod llama_loader;
mod math;
mod packed_matrix;
mod panel_matrix;
mod pool;
mod rope;
mod softmax;

pub use backend::{CpuBackend, vector_bits};
pub use compute::ActivationDtype;
pub use config::CpuConfig;
pub use instructions::Instructions;
pub use kernel_bench::KernelBench;
pub use packed_matrix::WeightDtype;
