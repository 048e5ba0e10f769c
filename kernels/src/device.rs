//! Kernel launches, and the devices that run them.

// Kernels trust the addresses in their arguments.
#![allow(unsafe_code)]

use crate::error::Error;

/// An address in a device's memory, which for the CPU shim is this process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Address(u64);

impl Address {
    /// The null address, for optional arguments.
    pub const NULL: Self = Self(0);

    /// Creates an address from a device pointer, as the driver represents it.
    #[must_use]
    pub fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as the driver represents it.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the address at which the CPU shim reads these values.
    #[must_use]
    pub fn of<T>(values: &[T]) -> Self {
        Self(values.as_ptr().expose_provenance() as u64)
    }

    /// Returns the address at which the CPU shim writes these values.
    pub fn of_mut<T>(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr().expose_provenance() as u64)
    }
}

/// A kernel, the number of threads that run it, and its only parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch<A> {
    /// The kernel's name in the image.
    pub kernel: &'static str,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: u32,
    /// Bytes of dynamic shared memory per block.
    pub shared: u32,
    /// The parameter, with the same layout as the kernel's struct.
    pub args: A,
}

/// A view of a bf16 cache of keys or values, `[slots][kv_heads][head_size]`, for a device's copy engine (TMA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheView {
    /// The cache's address, a multiple of 16.
    pub cache: Address,
    /// Total number of slots in all blocks.
    pub slots: u32,
    /// KV heads per slot.
    pub kv_heads: u32,
    /// Elements per head, a multiple of 64.
    pub head_size: u32,
    /// Slots per fetch: the slots of one block, but at most 64.
    pub rows: u32,
}

/// A [`CacheView`] in a device's format: `CUtensorMap` on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(128))]
pub struct TensorMap(pub(crate) [u64; 16]);

/// A device that runs kernels.
pub trait Device {
    /// Returns the description of a cache that the device's copy engine needs.
    ///
    /// # Errors
    ///
    /// The device has no copy engine, or does not support the view.
    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, Error>;

    /// Runs a launch, or adds it to the device's queue.
    ///
    /// # Errors
    ///
    /// The device does not have the kernel or rejects the launch. The CPU shim also returns errors that it detects
    /// while the kernel runs.
    ///
    /// # Safety
    ///
    /// Addresses in the arguments must be valid on this device for everything that the kernel reads and writes, until
    /// the kernel has finished. Ids, slots and block tables must be in range.
    unsafe fn launch<A: Copy>(&self, launch: &Launch<A>) -> Result<(), Error>;
}
