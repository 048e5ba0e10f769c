//! `Accelerator`: a device of the CUDA backend, with memory and one queue of copies, kernel launches and matrix
//! products.

// A kernel launch passes addresses that nothing checks.
#![allow(unsafe_code)]

use std::fmt::Debug;

use surprisal_kernels::{CacheView, Launch, TensorMap};

use super::device_communicator::DeviceCommunicator;
use super::gemm::Gemm;
use super::memory::DeviceRegion;
use crate::backend::BackendError;

/// A device with one queue: all operations run in the order of the calls, including exchanges with other ranks.
pub trait Accelerator: DeviceCommunicator + Send + 'static {
    /// Recorded work, which must be dropped before the accelerator.
    type Recording: Debug + Send;

    /// Returns a description of the device.
    fn name(&self) -> String;

    /// Returns a description, for fingerprints, of everything on which the bits of the device's results depend.
    fn numerics(&self) -> String;

    /// Returns the number of bytes that can be allocated.
    ///
    /// # Errors
    ///
    /// Fails if the device reports an error.
    fn free_memory(&self) -> Result<usize, BackendError>;

    /// Returns the maximum shared memory per thread block, in bytes.
    ///
    /// # Errors
    ///
    /// Fails if the device reports an error.
    fn shared_memory(&self) -> Result<usize, BackendError>;

    /// Waits for all queued work, and returns whether further operations can succeed.
    fn is_alive(&self) -> bool;

    /// Allocates memory that is valid until the accelerator is dropped. Its contents are undefined.
    ///
    /// # Errors
    ///
    /// Fails if the device is out of memory.
    fn allocate(&mut self, bytes: usize) -> Result<DeviceRegion, BackendError>;

    /// Copies bytes from the host to the beginning of a region.
    ///
    /// # Errors
    ///
    /// Fails if the region is too short, or the device fails.
    fn write(&mut self, to: DeviceRegion, bytes: &[u8]) -> Result<(), BackendError>;

    /// Waits for all queued work, and copies bytes from the beginning of a region to the host.
    ///
    /// # Errors
    ///
    /// Fails if the region is too short, or if the device fails or has failed earlier.
    fn read(&mut self, from: DeviceRegion, bytes: &mut [u8]) -> Result<(), BackendError>;

    /// Fills `to` with the beginning of `from`. The regions must not overlap.
    ///
    /// # Errors
    ///
    /// Fails if `from` is too short, or the device fails.
    fn copy(&mut self, from: DeviceRegion, to: DeviceRegion) -> Result<(), BackendError>;

    /// Queues a matrix product. The bits of an output row depend only on its input row and the weights, not on the
    /// number of rows or on the row's position.
    ///
    /// # Errors
    ///
    /// Fails if a region is too short for its matrix, or if the device does not support the product.
    fn multiply(&mut self, gemm: &Gemm) -> Result<(), BackendError>;

    /// Queues a kernel launch.
    ///
    /// # Errors
    ///
    /// Fails if the device rejects the launch.
    ///
    /// # Safety
    ///
    /// Same as [`surprisal_kernels::Device::launch`], for as long as the launch may be [replayed](Self::replay).
    unsafe fn launch<A: Copy + Send + 'static>(&mut self, launch: &Launch<A>) -> Result<(), BackendError>;

    /// Creates the description of a cache that the device's copy engine needs.
    ///
    /// # Errors
    ///
    /// Same as [`surprisal_kernels::Device::tensor_map`].
    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, BackendError>;

    /// Queues and records the operations of `work`: launches, products and copies on the device, but no copies from or
    /// to the host.
    ///
    /// # Errors
    ///
    /// Fails if `work` fails, or if the device cannot record an operation.
    fn record(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), BackendError>,
    ) -> Result<Self::Recording, BackendError>;

    /// Queues the recorded operations again, on the current contents of the same memory.
    ///
    /// # Errors
    ///
    /// Fails if the device reports an error.
    fn replay(&mut self, recording: &Self::Recording) -> Result<(), BackendError>;
}

impl From<surprisal_kernels::Error> for BackendError {
    fn from(error: surprisal_kernels::Error) -> Self {
        Self(error.to_string())
    }
}
