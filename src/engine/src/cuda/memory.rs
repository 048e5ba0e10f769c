//! Device memory: regions, and an arena that divides a region into pieces.

use surprisal_kernels::Address;

use crate::backend::BackendError;

/// Alignment of regions in bytes, as vector loads and matrix products require.
const ALIGNMENT: usize = 256;

/// A range of an accelerator's memory, valid until the accelerator is dropped.
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

    /// Returns `bytes` bytes of the region, starting at the offset `at`.
    ///
    /// # Errors
    ///
    /// Fails if the region is too short.
    pub fn subregion(&self, at: usize, bytes: usize) -> Result<Self, BackendError> {
        match at.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(Self { address: Address::new(self.address.get() + at as u64), bytes }),
            _ => Err(BackendError(format!("{bytes} bytes at offset {at} exceed a region of {} bytes", self.bytes))),
        }
    }

    /// Divides the region into `of` slices of the same length, and returns the slice at `index`.
    ///
    /// # Errors
    ///
    /// Fails if the region's length is not divisible by `of`.
    pub fn slice(&self, index: usize, of: usize) -> Result<Self, BackendError> {
        match self.bytes.checked_rem(of) {
            Some(0) => self.subregion(index * (self.bytes / of), self.bytes / of),
            _ => Err(BackendError(format!(
                "a region of {} bytes cannot be divided into {of} slices of the same length",
                self.bytes
            ))),
        }
    }

    /// Returns the address, for a kernel that reads or writes `bytes` bytes there.
    ///
    /// # Errors
    ///
    /// Fails if the region is too short.
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

    /// Returns the number of bytes that `lay_out` takes.
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

/// Converts integers to little-endian bytes, as kernels read them.
pub(super) fn int_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Returns the subregion of `count` integers, starting at index `first`.
pub(super) fn int_region(region: DeviceRegion, first: usize, count: usize) -> Result<DeviceRegion, BackendError> {
    region.subregion(first * 4, count * 4)
}
