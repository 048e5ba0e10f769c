//! What ranks on devices tell each other: bytes that are moved and never added, in the order of each device's queue.
//!
//! A sum over ranks is an [`exchange`](Collective::exchange) of slices, a kernel that adds up one slice in order of rank, and a
//! [`gather`](Collective::gather) of the sums. Of n bytes among r ranks each sends `(r - 1) / r n` twice, as in a ring, which is
//! the least there is; but in two steps, not `2 (r - 1)`. And no value's addends, or their order, depend on where it lies among
//! how many others, as they do in a library's rings and trees.

use super::accelerator::Region;
use crate::backend::BackendError;

/// One rank's end of a group, all of whose ranks ask for the same things in the same order. A device alone is a group of one.
pub trait Collective {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// Ranks of the group.
    fn size(&self) -> usize;

    /// Both regions are a slice for each rank, all of one length: slice `r` of `from` goes to rank `r`, slice `r` of `to` comes
    /// from it. They do not overlap.
    ///
    /// # Errors
    ///
    /// A rank is lost, the regions differ in length, or the device fails; the group is of no more use.
    fn exchange(&mut self, from: Region, to: Region) -> Result<(), BackendError>;

    /// `all` is a slice for each rank, all of one length, this rank's in its place: the others' come into theirs.
    ///
    /// # Errors
    ///
    /// As [`exchange`](Self::exchange).
    fn gather(&mut self, all: Region) -> Result<(), BackendError>;
}
