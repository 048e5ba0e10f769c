//! A launch, and what can run it.

// To run a kernel is to trust its addresses.
#![allow(unsafe_code)]

use crate::error::Error;

/// An address in a device's memory; on the CPU shim, in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Address(u64);

impl Address {
    /// Nothing there; for what a kernel may go without.
    pub const NULL: Self = Self(0);

    /// A device pointer as the driver counts it.
    #[must_use]
    pub fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as the driver counts it.
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

/// A kernel, how many threads run it, and its one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch<A> {
    /// Its name in the image.
    pub kernel: &'static str,
    /// Blocks by x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Laid out as the kernel's struct.
    pub args: A,
}

/// A cache of keys or of values in bf16, `[slots][kv_heads][head_size]`, for a device's copy engine (TMA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheView {
    /// Its address, a multiple of 16.
    pub cache: Address,
    /// Slots of all blocks.
    pub slots: u32,
    /// Heads of a slot.
    pub kv_heads: u32,
    /// Columns of a head, a multiple of 64.
    pub head_size: u32,
    /// Slots that are fetched at a time: a block's, at most 64.
    pub rows: u32,
}

/// A view in a device's own words: `CUtensorMap` on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(128))]
pub struct TensorMap(pub(crate) [u64; 16]);

/// A device that runs kernels.
pub trait Device {
    /// Describes a cache to the device's copy engine.
    ///
    /// # Errors
    ///
    /// The device has none, or does not take the view.
    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, Error>;

    /// Runs a launch, or puts it in the device's queue.
    ///
    /// # Errors
    ///
    /// The device does not know the kernel or rejects its shape.
    ///
    /// # Safety
    ///
    /// Addresses among the arguments must be valid on this device for all that the kernel reads and writes, until it has
    /// run; ids, slots and block tables must point inside what they index.
    unsafe fn launch<A: Copy>(&self, launch: &Launch<A>) -> Result<(), Error>;
}
