//! CUDA kernels, the Rust that launches them, and the CPU shim that runs them in tests.
//!
//! The `.cu` files are plain CUDA C++. They include `port.cuh` alone, or with it `attention_tile.cuh`, the steps that
//! prefill and decode share. On a machine without a GPU the same files are compiled as C++: one CUDA thread is one fiber,
//! and a launch checks what a GPU would leave unchecked.
//!
//! Each kernel has one struct, laid out as its parameter, whose `launch` checks the shape and computes grid, block and
//! shared memory. A [`Launch`] runs on any [`Device`]: `cpu::Cpu` here (feature `shim`), `cuda::Module` where there is a GPU (feature
//! `cuda`, which needs no toolkit to build and no driver to start).
//!
//! No sum depends on the batch: a row's bits follow from its values, and a query's from its position and its keys.

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
