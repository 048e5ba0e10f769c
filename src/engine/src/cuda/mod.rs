//! The CUDA backend: a Llama over a paged KV cache, in bf16 or FP8, on any [`Accelerator`], or divided among several.
//!
//! Start with `backend`, which loads a model and runs a batch: `batch_plan` turns the batch into the kernels' integers, `forward` queues
//! the layers and `head` the scores. `Gpu` (feature `cuda`) is a GPU; `Shim` (feature `shim`) runs the same passes on a CPU, for tests.
//!
//! An [`Accelerator`] is memory, copies, launches and products. All memory is laid out before any is allocated, so a model that does not
//! fit is rejected first. A load ends with a few small passes, one of them recorded and replayed, so that it also rejects what the
//! device cannot run. On a GPU, passes of single tokens are recorded as CUDA graphs (`graph_cache`), and cuBLASLt uses one algorithm per
//! matrix, chosen once, that needs no workspace and splits no sum, so that a row's bits should not depend on the number of rows.
//! In FP8, a row of activations is quantized by its own largest value, and the sums are multiplied by the scales of row and column.
//!
//! # Several GPUs
//!
//! A [`DeviceCommunicator`] only moves bytes, in the device's queue. A sum is an exchange of slices, one kernel (`rank_sum.cu`) over a slice
//! from every rank, and a gather of the sums. NCCL's own all-reduce is not used: its rings and trees cut a message by its size, so a
//! row's bits would depend on the number of rows. For S bytes among r ranks each rank sends and receives 2(r - 1)/r S, as in a ring, but in
//! two steps instead of 2(r - 1). Values are bf16 on the way, and f32 in the sum.
//!
//! No NCCL call blocks. Wherever the host waits for its GPU, it also checks a flag that the ranks share. A rank that fails sets it; each
//! of the others aborts its communicator, so that kernels that wait for a peer return. The host is at most 16 exchanges ahead of the
//! device, because a full driver queue would block it where it cannot see the flag.
//!
//! This backend has not run on a GPU yet: tests run it on the shim, and `bench/gpu/run` runs them on a GPU.

mod accelerator;
mod backend;
mod batch_plan;
mod config;
#[cfg(feature = "cuda")]
mod cublaslt;
mod device_communicator;
mod forward;
mod gemm;
#[cfg(feature = "cuda")]
mod gpu;
mod graph_cache;
mod head;
mod kv_cache;
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
pub use config::{CudaConfig, Precision};
pub use device_communicator::DeviceCommunicator;
pub use gemm::{FP8_MULTIPLE, Gemm, GemmScales, ROW_TILE};
#[cfg(feature = "cuda")]
pub use gpu::Gpu;
pub use memory::DeviceRegion;
#[cfg(feature = "shim")]
pub use shim::Shim;
pub use weight_source::{Fp8Matrix, WeightSource};
