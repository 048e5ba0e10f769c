//! CUDA kernels, the Rust that launches them, and the CPU shim that runs them in tests.
//!
//! The `.cu` files are plain CUDA C++. They include `port.cuh` alone, or with it `attention_tile.cuh`, the steps that
//! prefill and decode share. On a machine without a GPU the same files are compiled as C++: one CUDA thread is one fiber,
//! and a launch checks what a GPU would leave unchecked.
//!
//! Start with [`rows`], the simplest kernels. Each kernel has one struct, laid out as its parameter, whose `launch` checks the shape and
//! computes grid, block and shared memory. A [`Launch`] runs on any [`Device`]: `cpu::Cpu` here (feature `shim`), `cuda::Module` where
//! there is a GPU (feature `cuda`, which needs no toolkit to build and no driver to start).
//!
//! The same text compiles with nvcc, with NVRTC (without toolkit headers) and with any C++ compiler. There, `cpu/` emulates barriers,
//! shuffles, `mma.sync`, `wgmma`, `ldmatrix`, `cp.async` and TMA. Tests run every kernel against float64 in several thread orders, and
//! `sanitize.sh` runs them under sanitizers, which must also find a planted bug of each class. `nvcc.sh` compiles everything for sm_80,
//! sm_90a and sm_100 and rejects attention that spills registers. Images are built in where there is an nvcc; elsewhere NVRTC compiles
//! them once, into a cache on disk.
//!
//! # Bits
//!
//! No sum depends on the batch. A row's sum is a fixed tree over its own length; a vocabulary's tiles are added in order, in f64.
//! Attention's query and key tiles lie at absolute positions, and each split of 512 keys has its own softmax; splits are merged in
//! order. So a prompt may be cut anywhere, and a decoded token has the bits of a prefilled one: both run `attention_tile.cuh`.
//! An FP8 cache scales each head of each slot by a power of two, so its bytes widen to bf16 exactly.
//!
//! Prefill has a second version for Hopper's wgmma, with tiles copied by all threads (`launch_wgmma`) or by the copy engine
//! (`launch_tma`); their bits are equal. The shim cannot show how a tensor core rounds inside one instruction. Only a GPU can confirm that
//! mma.sync and wgmma give the same bits, so a model uses one kernel throughout.

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
