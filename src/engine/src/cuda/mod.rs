//! The CUDA backend: a Llama over a paged KV cache, in bf16 or FP8, on any [`Accelerator`], or divided among several.
//!
//! Start with [`backend`], which loads a model and runs a batch: [`batch_plan`] turns the batch into the kernels' integers, [`forward`] queues
//! the layers and [`head`] the scores. `Gpu` (feature `cuda`) is a GPU; `Shim` (feature `shim`) runs the same passes on a CPU, for tests.

mod accelerator;
mod backend;
mod batch_plan;
mod collective;
mod config;
#[cfg(feature = "cuda")]
mod cublaslt;
mod forward;
mod gemm;
#[cfg(feature = "cuda")]
mod gpu;
mod graph_cache;
mod head;
mod memory;
mod model_shape;
#[cfg(feature = "cuda")]
mod nccl;
#[cfg(feature = "shim")]
mod shim;
mod weight_loader;
mod weight_source;
mod weights;
mod workspace;

pub use accelerator::Accelerator;
pub use backend::CudaBackend;
pub use collective::Collective;
pub use config::{CudaConfig, Precision};
pub use gemm::{FP8_MULTIPLE, Gemm, GemmScales, ROW_TILE};
#[cfg(feature = "cuda")]
pub use gpu::Gpu;
pub use memory::Region;
#[cfg(feature = "shim")]
pub use shim::Shim;
pub use weight_source::{Fp8Matrix, WeightSource};
