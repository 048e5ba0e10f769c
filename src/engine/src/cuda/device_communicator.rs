//! `DeviceCommunicator`: exchanges between ranks on devices. They move bytes and never add them, in the order of each device's queue.
//!
//! A sum over ranks is an [`exchange`](DeviceCommunicator::exchange) of slices, a kernel that adds up one slice in order of rank, and a
//! [`gather`](DeviceCommunicator::gather) of the sums. For n bytes among r ranks, each rank sends the minimum,
//! `2 (r - 1) / r · n` bytes, in two steps instead of a ring's `2 (r - 1)`. Unlike a library's rings and trees, a value's order of addition does not depend on its position or on the message
//! size.

use super::memory::DeviceRegion;
use crate::backend::BackendError;

/// A rank's link to its group for device memory; moves bytes, never adds.
///
/// All ranks call the same methods in the same order. A single device is a group of one.
pub trait DeviceCommunicator {
    /// Returns this rank, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks of the group.
    fn size(&self) -> usize;

    /// Sends slice `r` of `from` to rank `r`, and receives slice `r` of `to` from it. Both regions have a slice per rank, all of one length,
    /// and do not overlap.
    ///
    /// # Errors
    ///
    /// A rank is lost, the regions differ in length, or the device fails; the group cannot be used anymore.
    fn exchange(&mut self, from: DeviceRegion, to: DeviceRegion) -> Result<(), BackendError>;

    /// Gathers a slice of each rank, all of one length. `all` holds this rank's slice in its place, and receives the others.
    ///
    /// # Errors
    ///
    /// As [`exchange`](Self::exchange).
    fn gather(&mut self, all: DeviceRegion) -> Result<(), BackendError>;
}
