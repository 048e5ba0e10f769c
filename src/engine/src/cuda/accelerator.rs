//! What the CUDA backend asks of a device: memory, copies, launches and products, in the order of one queue.

// To launch a kernel is to trust its addresses.
#![allow(unsafe_code)]

use std::fmt::Debug;

use surprisal_kernels::{Address, CacheView, Launch, TensorMap};

use super::collective::Collective;
use crate::backend::BackendError;

/// Rows of a product are computed in whole tiles of so many; what is beyond the last row is never read.
pub const ROW_TILE: usize = 128;

/// Where regions begin: any vector load, and any product, may start there.
const ALIGNMENT: usize = 256;

/// Memory of an [`Accelerator`], for as long as that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    address: Address,
    bytes: usize,
}

impl Region {
    /// Memory that an accelerator allocated, from `address` on.
    pub(super) fn new(address: u64, bytes: usize) -> Self {
        Self { address: Address::new(address), bytes }
    }

    /// How long it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `bytes` of it from `at` on.
    ///
    /// # Errors
    ///
    /// It ends before.
    pub fn part(&self, at: usize, bytes: usize) -> Result<Self, BackendError> {
        match at.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(Self { address: Address::new(self.address.get() + at as u64), bytes }),
            _ => Err(BackendError(format!("{bytes} bytes at {at} of a region of {}", self.bytes))),
        }
    }

    /// The `index`th of so many slices of one length.
    ///
    /// # Errors
    ///
    /// It is not so many slices.
    pub fn slice(&self, index: usize, of: usize) -> Result<Self, BackendError> {
        match self.bytes.checked_rem(of) {
            Some(0) => self.part(index * (self.bytes / of), self.bytes / of),
            _ => Err(BackendError(format!("{} bytes are not {of} slices of one length", self.bytes))),
        }
    }

    /// Its address, for a kernel that reads or writes so many bytes from there.
    ///
    /// # Errors
    ///
    /// It is shorter.
    pub fn holding(&self, bytes: usize) -> Result<Address, BackendError> {
        self.part(0, bytes).map(|part| part.address)
    }
}

/// Hands out a region piece by piece, or, on no region, finds how much is needed.
#[derive(Debug)]
pub(super) struct Arena {
    base: u64,
    used: usize,
}

impl Arena {
    pub(super) fn over(region: Region) -> Self {
        Self { base: region.address.get(), used: 0 }
    }

    /// Bytes that `lay_out` takes.
    pub(super) fn measure<T>(lay_out: impl FnOnce(&mut Self) -> T) -> usize {
        let mut arena = Self { base: 0, used: 0 };
        lay_out(&mut arena);
        arena.used
    }

    pub(super) fn take(&mut self, bytes: usize) -> Region {
        let region = Region::new(self.base + self.used as u64, bytes);
        self.used += bytes.next_multiple_of(ALIGNMENT);
        region
    }
}

/// `out = x weights^T + bias`: rows of `k` values times `n` rows of `k` values, summed in f32.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// `[rows][n]`: bf16, or f32 if `wide`.
    pub out: Region,
    /// `[rows][k]`: bf16, or with scales bytes of e4m3.
    pub x: Region,
    /// `[n][k]`: as `x`.
    pub weights: Region,
    /// `[n]` bf16.
    pub bias: Option<Region>,
    /// Rows that matter; `out` and `x` hold whole tiles of [`ROW_TILE`].
    pub rows: usize,
    /// Columns of `out`; a multiple of 8, or of [`FP8_MULTIPLE`].
    pub n: usize,
    /// Columns of `x`; a multiple of 8, or of [`FP8_MULTIPLE`].
    pub k: usize,
    /// Whether sums are kept in f32.
    pub wide: bool,
    /// Of a product in FP8, which is not `wide`.
    pub scales: Option<Scales>,
}

/// What the sums of a product in FP8 are multiplied with before the bias is added: a row's scale and a column's.
#[derive(Clone, Copy, Debug)]
pub struct Scales {
    /// `[rows]` f32, of `x`, whole tiles of them.
    pub rows: Region,
    /// `[n]` f32, of `weights`.
    pub columns: Region,
}

/// What the sides of a product in FP8 are multiples of.
pub const FP8_MULTIPLE: usize = 16;

impl Product {
    /// # Errors
    ///
    /// A region is shorter than its matrix, or FP8 has no such product.
    pub fn check(&self) -> Result<(), BackendError> {
        let (rows, value) = (self.rows.next_multiple_of(ROW_TILE), if self.scales.is_some() { 1 } else { 2 });
        self.out.holding(rows * self.n * if self.wide { 4 } else { 2 })?;
        self.x.holding(rows * self.k * value)?;
        self.weights.holding(self.n * self.k * value)?;
        self.bias.map_or(Ok(()), |bias| bias.holding(self.n * 2).map(drop))?;
        let Some(scales) = self.scales else { return Ok(()) };
        scales.rows.holding(rows * 4)?;
        scales.columns.holding(self.n * 4)?;
        if self.wide || !self.n.is_multiple_of(FP8_MULTIPLE) || !self.k.is_multiple_of(FP8_MULTIPLE) {
            let Self { n, k, wide, .. } = self;
            return Err(BackendError(format!("no product in FP8 has n {n}, k {k}, wide {wide}")));
        }
        Ok(())
    }
}

/// A device with one queue: everything happens in the order it was asked for, what it tells other ranks too.
pub trait Accelerator: Collective + Send + 'static {
    /// Work that can be queued again; it is dropped before the accelerator is.
    type Recording: Debug + Send;

    /// For people to read.
    fn name(&self) -> String;

    /// What the bits of its products and functions depend on, for fingerprints.
    fn numerics(&self) -> String;

    /// Bytes that can be allocated.
    ///
    /// # Errors
    ///
    /// The device fails.
    fn free_memory(&self) -> Result<usize, BackendError>;

    /// Bytes of shared memory that a block of a kernel may have.
    ///
    /// # Errors
    ///
    /// The device fails.
    fn shared_memory(&self) -> Result<usize, BackendError>;

    /// Whether what it is asked next can succeed; it waits for all that is queued.
    fn is_alive(&self) -> bool;

    /// Memory until the accelerator is dropped; what is in it is undefined.
    ///
    /// # Errors
    ///
    /// There is none left.
    fn allocate(&mut self, bytes: usize) -> Result<Region, BackendError>;

    /// Copies to the device.
    ///
    /// # Errors
    ///
    /// The region is shorter, or the device fails.
    fn write(&mut self, to: Region, bytes: &[u8]) -> Result<(), BackendError>;

    /// Copies from the device, when everything before is done.
    ///
    /// # Errors
    ///
    /// The region is shorter, or the device failed, now or earlier.
    fn read(&mut self, from: Region, bytes: &mut [u8]) -> Result<(), BackendError>;

    /// Copies on the device: the beginning of `from` fills `to`. The two do not overlap.
    ///
    /// # Errors
    ///
    /// `from` is shorter, or the device fails.
    fn copy(&mut self, from: Region, to: Region) -> Result<(), BackendError>;

    /// Each row's bits depend on that row and the weights alone, not on how many rows there are or which it is.
    ///
    /// # Errors
    ///
    /// A region is shorter than its matrix, or the device has no such product.
    fn multiply(&mut self, product: &Product) -> Result<(), BackendError>;

    /// Runs a kernel.
    ///
    /// # Errors
    ///
    /// The device refuses it.
    ///
    /// # Safety
    ///
    /// As [`surprisal_kernels::Device::launch`], as long as the launch may be [replayed](Self::replay).
    unsafe fn launch<A: Copy + Send + 'static>(&mut self, launch: &Launch<A>) -> Result<(), BackendError>;

    /// Describes a cache to the device's copy engine.
    ///
    /// # Errors
    ///
    /// As [`surprisal_kernels::Device::tensor_map`].
    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, BackendError>;

    /// Queues what `work` queues, and remembers it: launches, products and copies on the device, none to it or from it.
    ///
    /// # Errors
    ///
    /// As `work`; the device cannot record something of it.
    fn record(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), BackendError>,
    ) -> Result<Self::Recording, BackendError>;

    /// Queues the same again, on what is then in the same places.
    ///
    /// # Errors
    ///
    /// The device fails.
    fn replay(&mut self, recording: &Self::Recording) -> Result<(), BackendError>;
}

impl From<surprisal_kernels::Error> for BackendError {
    fn from(error: surprisal_kernels::Error) -> Self {
        Self(error.to_string())
    }
}
