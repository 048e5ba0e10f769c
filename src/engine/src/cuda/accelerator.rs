//! `Accelerator`: the device of the CUDA backend, with memory, copies, launches and products in one queue.

// To launch a kernel is to trust its addresses.
#![allow(unsafe_code)]

use std::fmt::Debug;

use surprisal_kernels::{CacheView, Launch, TensorMap};

use super::device_communicator::DeviceCommunicator;
use super::gemm::Gemm;
use super::memory::DeviceRegion;
use crate::backend::BackendError;

/// A device with one queue: all operations run in the order of the calls, including exchanges with other ranks.
pub trait Accelerator: DeviceCommunicator + Send + 'static {
    /// Recorded work; it is dropped before the accelerator.
    type Recording: Debug + Send;

    /// Describes the device.
    fn name(&self) -> String;

    /// Returns what the bits of its products and functions depend on, for fingerprints.
    fn numerics(&self) -> String;

    /// Returns the bytes that can be allocated.
    ///
    /// # Errors
    ///
    /// The device fails.
    fn free_memory(&self) -> Result<usize, BackendError>;

    /// Returns the bytes of shared memory that a thread block may have.
    ///
    /// # Errors
    ///
    /// The device fails.
    fn shared_memory(&self) -> Result<usize, BackendError>;

    /// Returns whether the next operation can succeed; waits for all queued work.
    fn is_alive(&self) -> bool;

    /// Allocates memory, with undefined contents, until the accelerator is dropped.
    ///
    /// # Errors
    ///
    /// The device is out of memory.
    fn allocate(&mut self, bytes: usize) -> Result<DeviceRegion, BackendError>;

    /// Copies to the device.
    ///
    /// # Errors
    ///
    /// The region is shorter, or the device fails.
    fn write(&mut self, to: DeviceRegion, bytes: &[u8]) -> Result<(), BackendError>;

    /// Copies from the device, after all queued work is done.
    ///
    /// # Errors
    ///
    /// The region is shorter, or the device failed, now or earlier.
    fn read(&mut self, from: DeviceRegion, bytes: &mut [u8]) -> Result<(), BackendError>;

    /// Copies on the device: the beginning of `from` fills `to`. The two do not overlap.
    ///
    /// # Errors
    ///
    /// `from` is shorter, or the device fails.
    fn copy(&mut self, from: DeviceRegion, to: DeviceRegion) -> Result<(), BackendError>;

    /// Queues a product. A row's bits depend only on that row and the weights, not on the number of rows or its position.
    ///
    /// # Errors
    ///
    /// A region is shorter than its matrix, or the device has no such product.
    fn multiply(&mut self, gemm: &Gemm) -> Result<(), BackendError>;

    /// Queues a kernel.
    ///
    /// # Errors
    ///
    /// The device rejects it.
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

    /// Queues and records the operations of `work`: launches, products and copies on the device, but none to or from the host.
    ///
    /// # Errors
    ///
    /// As `work`; or the device cannot record an operation.
    fn record(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), BackendError>,
    ) -> Result<Self::Recording, BackendError>;

    /// Queues the recorded operations again, on the current contents of the same memory.
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
