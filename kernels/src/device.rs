//! A launch, and what can run it.

// To run a kernel is to trust its addresses.
#![allow(unsafe_code)]

use crate::Error;

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

    /// As the driver counts it.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// Where the CPU shim reads these values.
    #[must_use]
    pub fn of<T>(values: &[T]) -> Self {
        Self(values.as_ptr().expose_provenance() as u64)
    }

    /// Where the CPU shim writes these values.
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

/// Something that runs kernels.
pub trait Device {
    /// Runs a launch, or puts it in the device's queue.
    ///
    /// # Errors
    ///
    /// The device does not know the kernel or refuses its shape.
    ///
    /// # Safety
    ///
    /// Addresses among the arguments must be valid on this device for all that the kernel reads and writes, until it has
    /// run; ids, slots and block tables must point inside what they index.
    unsafe fn launch<A: Copy>(&self, launch: &Launch<A>) -> Result<(), Error>;
}
