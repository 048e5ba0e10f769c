//! `DeviceCommunicator`: communication between the devices of several ranks. It moves bytes in the order of each
//! device's queue, and does no arithmetic.
//!
//! A sum over ranks takes three steps: an [`exchange`](DeviceCommunicator::exchange) of slices, a kernel on each rank
//! that adds up one slice in rank order, and a [`gather`](DeviceCommunicator::gather) of the sums. For n bytes and r
//! ranks, each rank sends the minimum, `2 (r - 1) / r · n` bytes, in two transfers instead of a ring's `2 (r - 1)`.
//! Unlike in the ring and tree algorithms of communication libraries, the order in which the addends of a value are
//! added does not depend on the value's position or on the message size.

use super::memory::DeviceRegion;
use crate::backend::BackendError;

/// A rank's connection to its group, for data in device memory. It moves bytes and does no arithmetic.
///
/// All ranks call the same methods in the same order. A single device is a group of one rank.
pub trait DeviceCommunicator {
    /// Returns this rank's index, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks in the group.
    fn size(&self) -> usize;

    /// Sends slice `r` of `from` to each rank `r`, and receives slice `r` of `to` from that rank. Both regions consist
    /// of one slice per rank, all of the same length, and do not overlap.
    ///
    /// # Errors
    ///
    /// Fails if a rank is lost, the regions differ in length, or the device fails. The group cannot be used afterwards.
    fn exchange(&mut self, from: DeviceRegion, to: DeviceRegion) -> Result<(), BackendError>;

    /// Gathers one slice from each rank, all of the same length. `all` already contains this rank's slice at the rank's
    /// position, and receives the other slices.
    ///
    /// # Errors
    ///
    /// Same as [`exchange`](Self::exchange).
    fn gather(&mut self, all: DeviceRegion) -> Result<(), BackendError>;
}
