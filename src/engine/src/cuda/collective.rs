//! `Collective`: exchanges between ranks on devices. They move bytes and never add them, in the order of each device's queue.
//!
//! A sum over ranks is an [`exchange`](Collective::exchange) of slices, a kernel that adds up one slice in order of rank, and a
//! [`gather`](Collective::gather) of the sums. Of n bytes among r ranks each sends `(r - 1) / r n` twice, as in a ring, which is
//! the least there is; but in two steps, not `2 (r - 1)`. And no value's addends, or their order, depend on where it lies among
//! how many others, as they do in a library's rings and trees.

use super::memory::Region;
use crate::backend::BackendError;

/// One rank's connection to its group. All ranks call the same methods in the same order. A single device is a group of one.
pub trait Collective {
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
    fn exchange(&mut self, from: Region, to: Region) -> Result<(), BackendError>;

    /// Gathers a slice of each rank, all of one length. `all` holds this rank's slice in its place, and receives the others.
    ///
    /// # Errors
    ///
    /// As [`exchange`](Self::exchange).
    fn gather(&mut self, all: Region) -> Result<(), BackendError>;
}
