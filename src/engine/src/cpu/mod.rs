//! The CPU backend: a Llama over a paged KV cache.
//!
//! Start with [`backend`], which loads a model and runs a batch. [`llama`] is the forward pass, [`attention`] and [`head`] its two large
//! steps, and [`gemm`] the matrix product they rest on. Activations are [`panel_matrix`]es, weights [`packed_matrix`]es.

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
pub use compute::Activations;
pub use config::CpuConfig;
pub use instructions::Instructions;
pub use kernel_bench::KernelBench;
pub use packed_matrix::WeightType;
