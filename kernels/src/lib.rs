//! CUDA kernels, the Rust code that compiles and launches them, and the CPU shim that runs them in tests.
//!
//! The `.cu` files are plain CUDA C++. They include `port.cuh`; the attention kernels also include
//! `attention_tile.cuh`, which has the steps that prefill and decode share. For the CPU shim, the same files compile as
//! C++. On the shim, each CUDA thread is a fiber, and a launch reports errors that a GPU does not detect, such as a
//! barrier that only some threads reach.
//!
//! Start with [`rows`], the simplest kernels. Each kernel has one parameter, a struct. The struct's `launch` method
//! checks the shape and computes the grid, the block and the shared memory. A [`Launch`] runs on any [`Device`]:
//! `cpu::Cpu` on the CPU shim (feature `shim`), `cuda::Module` on a GPU (feature `cuda`, which needs no CUDA toolkit to
//! build and no driver to start).
//!
//! The same source compiles with nvcc, with NVRTC (without toolkit headers) and as C++, where `cpu/` emulates barriers,
//! shuffles, `mma.sync`, `wgmma`, `ldmatrix`, `cp.async` and TMA. Tests compare every kernel with float64 in several
//! thread orders. `sanitize.sh` runs the kernels under sanitizers, and checks that the sanitizers find the bugs that it
//! plants. `nvcc.sh` compiles everything for sm_80, sm_90a and sm_100, and fails if attention spills registers. If nvcc
//! is available at build time, images are built in; otherwise NVRTC compiles the kernels at run time and caches the
//! images on disk.
//!
//! # Bit-identical results
//!
//! No sum depends on the rest of the batch. A row is summed by a fixed tree, which depends only on the row's length.
//! The tiles of a vocabulary are added in order, in f64. In attention, tiles of queries and keys lie at absolute
//! positions; each split of 512 keys has its own softmax, and splits are merged in order. So a prompt can be cut into
//! chunks anywhere, and decoding a token gives the same bits as prefilling it: both run the code in
//! `attention_tile.cuh`. An FP8 cache scales each head of each slot by a power of two, so its bytes widen to bf16
//! exactly.
//!
//! Prefill has a second version for Hopper's wgmma, with tiles copied by all threads (`launch_wgmma`) or by the copy
//! engine (`launch_tma`). These two variants give the same bits. The shim cannot show how a tensor core rounds within
//! one instruction, so only a GPU can confirm that mma.sync and wgmma give the same bits. Until a GPU has confirmed
//! this, only benchmarks and tests use wgmma.

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
mod shape;
mod sources;

pub use device::{Address, CacheView, Device, Launch, TensorMap};
pub use error::Error;
pub use sources::{FATBINS, HEADERS, SOURCES, Source};
