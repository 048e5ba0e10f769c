//! The CPU backend: a Llama over a paged KV cache.
//!
//! Start with [`backend`], which loads a model and runs a batch. [`llama`] is the forward pass, [`attention`] and [`head`] its two large
//! steps, and [`gemm`] the matrix product they rest on. Activations are [`panel_matrix`]es, weights [`packed_matrix`]es.
//!
//! # Same query, same bits
//!
//! A log-probability depends on the tokens before it alone, because no sum depends on anything else:
//!
//! - Products ([`gemm`]): each element is a chain of fused multiply-adds over k, in blocks of at most 256, whatever the tile, the
//!   vector width or the thread. bf16 and int8 weights ([`packed_matrix`]) are read as the f32 they stand for. Products of bf16 pairs
//!   ([`gemm_bf16`]) have one order too, but the rounding of the instruction, so the fingerprint names it.
//! - Attention ([`attention`], one block in [`softmax`]): each query row walks its blocks by position, and reads no slot after its own.
//! - The head ([`head`]): vocabulary chunks of fixed size, combined in order, in f64.
//!
//! Products, norms and softmax are written once over `pulp`'s vectors. A panel has 32 columns, so tasks write disjoint contiguous
//! memory without `unsafe`, and a KV block of 32 keys is one panel of a product. A pass is about a hundred parallel loops with a step
//! of one thread between two; [`pool`] keeps all threads awake through it.
//!
//! Rotary frequencies and angles are rounded to f32 as in transformers, because checkpoints are trained with them. Dynamic NTK would make
//! a token's key depend on the length of its whole text, so the engine rejects sequences longer than the trained length.

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
