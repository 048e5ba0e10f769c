//! CUDA kernels, the Rust that launches them, and the CPU shim that runs them in tests.
//!
//! The `.cu` files are plain CUDA C++ that include only `port.cuh`. On a machine without a GPU the same files are compiled
//! as C++: one CUDA thread is one fiber, and a launch checks what a GPU would leave unchecked. [`cpu::launch`] has the
//! shape of `cuLaunchKernel`, so that the CPU is one more device behind the same code.

pub mod cpu;

/// The kernels' sources by name: what NVRTC compiles where no image fits.
pub const SOURCES: [(&str, &str); 3] = [
    ("port.cuh", include_str!("../port.cuh")),
    ("rms_norm", include_str!("../rms_norm.cu")),
    ("paged_attention", include_str!("../paged_attention.cu")),
];

/// The kernels' images by name, for sm_80, sm_90a and sm_100; empty if there was no nvcc when this was built.
pub const FATBINS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));
