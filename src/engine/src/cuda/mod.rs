//! The CUDA backend: a Llama model with a paged KV cache, in bf16 or FP8, on one [`Accelerator`] or divided among
//! several.
//!
//! Start with `backend`, which loads a model and runs batches: `batch_plan` converts a batch to the integers that the
//! kernels read, `forward` queues the layers, and `head` queues the computation of the scores. `Gpu` (feature `cuda`)
//! runs the passes on a GPU, and `Shim` (feature `shim`) runs them on a CPU, for tests.
//!
//! An [`Accelerator`] provides memory, copies, kernel launches and matrix products. All memory is laid out before any
//! is allocated, so a model that does not fit is rejected early. Loading ends with a few small passes, one of which is
//! recorded and replayed, so a model that the device cannot run is also rejected. On a GPU, passes of single tokens are
//! recorded as CUDA graphs (`graph_cache`). For each kind of matrix product, one cuBLASLt algorithm is chosen once. It
//! needs no workspace and splits no sum, so the bits of a row's result should not depend on the number of rows. In FP8,
//! each row of activations is scaled by its largest value and quantized, and each sum is multiplied by the scales of
//! its row and its column.
//!
//! # Several GPUs
//!
//! A [`DeviceCommunicator`] only moves bytes, in the device's queue. A sum over ranks is an exchange of slices, one
//! kernel (`rank_sum.cu`) that adds the slices of all ranks, and a gather of the sums. NCCL's all-reduce is not used:
//! its ring and tree algorithms split a message according to its size, so the bits of a row's result would depend on
//! the number of rows. For n bytes and r ranks, each rank sends and receives `2 (r - 1) / r · n` bytes, as in a ring,
//! but in two transfers instead of `2 (r - 1)`. Values are bf16 in transit and f32 in the sum.
//!
//! No NCCL call blocks. Whenever the host waits for its GPU, it also checks a flag that the ranks share. A rank that
//! fails sets the flag. Every other rank then aborts its communicator, so kernels that wait for a peer return. The host
//! queues at most 16 exchanges ahead of the device, because a full driver queue would block the host in a call that
//! cannot check the flag.
//!
//! This backend has not run on a GPU yet. Tests run it on the shim; `bench/gpu/run` runs them on a GPU.

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
