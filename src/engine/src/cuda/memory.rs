//! Device memory: regions of it, and the arena that lays out a region piece by piece.

use surprisal_kernels::Address;

use crate::backend::BackendError;

/// Alignment of regions in bytes, for vector loads and products.
const ALIGNMENT: usize = 256;

/// Memory of an accelerator, valid while the accelerator lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRegion {
    address: Address,
    bytes: usize,
}

impl DeviceRegion {
    /// Wraps memory that an accelerator allocated.
    pub(super) fn new(address: u64, bytes: usize) -> Self {
        Self { address: Address::new(address), bytes }
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns `bytes` of the region from `at` on.
    ///
    /// # Errors
    ///
    /// The region is shorter.
    pub fn subregion(&self, at: usize, bytes: usize) -> Result<Self, BackendError> {
        match at.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(Self { address: Address::new(self.address.get() + at as u64), bytes }),
            _ => Err(BackendError(format!("{bytes} bytes at {at} of a region of {}", self.bytes))),
        }
    }

    /// Returns the `index`th of `of` slices of one length.
    ///
    /// # Errors
    ///
    /// The length is not divisible by `of`.
    pub fn slice(&self, index: usize, of: usize) -> Result<Self, BackendError> {
        match self.bytes.checked_rem(of) {
            Some(0) => self.subregion(index * (self.bytes / of), self.bytes / of),
            _ => Err(BackendError(format!("{} bytes are not {of} slices of one length", self.bytes))),
        }
    }

    /// Returns the address, for a kernel that reads or writes `bytes` there.
    ///
    /// # Errors
    ///
    /// The region is shorter.
    pub fn checked_address(&self, bytes: usize) -> Result<Address, BackendError> {
        self.subregion(0, bytes).map(|region| region.address)
    }
}

/// Divides a region into pieces; without a region, measures how much memory the pieces need.
#[derive(Debug)]
pub(super) struct Arena {
    base: u64,
    used: usize,
}

impl Arena {
    pub(super) fn over(region: DeviceRegion) -> Self {
        Self { base: region.address.get(), used: 0 }
    }

    /// Returns the bytes that `lay_out` takes.
    pub(super) fn measure<T>(lay_out: impl FnOnce(&mut Self) -> T) -> usize {
        let mut arena = Self { base: 0, used: 0 };
        lay_out(&mut arena);
        arena.used
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self, bytes: usize) -> DeviceRegion {
        let region = DeviceRegion::new(self.base + self.used as u64, bytes);
        self.used += bytes.next_multiple_of(ALIGNMENT);
        region
    }
}

/// Returns the bytes of integers on the device.
pub(super) fn int_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Returns the region of `count` integers from the `first`th on.
pub(super) fn int_region(region: DeviceRegion, first: usize, count: usize) -> Result<DeviceRegion, BackendError> {
    region.subregion(first * 4, count * 4)
}
