//! `GraphCache`: recordings of repeated passes.
//!
//! Queueing a decode pass launch by launch takes about as long as computing it. Such a pass is recorded when it occurs
//! for the second time, and replayed as a whole from then on. On a GPU, a recording is a CUDA graph. Once the device
//! fails to record a pass, no further pass is recorded.

use std::collections::HashMap;

use super::accelerator::Accelerator;
use super::batch_plan::BatchPlan;
use crate::backend::BackendError;

/// Maximum number of passes in the cache. The next new pass clears the cache.
const MAX_PASSES: usize = 64;

/// The properties that determine a pass's launches: the number of sequences and the width of their block tables.
type PassKey = (usize, usize);

/// The passes seen so far, and a recording of each pass that occurred at least twice.
#[derive(Debug)]
pub(super) struct GraphCache<R> {
    passes: HashMap<PassKey, Option<R>>,
    /// `true` if the device has failed to record a pass.
    failed: bool,
}

impl<R> Default for GraphCache<R> {
    fn default() -> Self {
        Self { passes: HashMap::new(), failed: false }
    }
}

impl<R> GraphCache<R> {
    /// Returns whether passes are recorded: `true` until the device fails to record one.
    pub(super) fn can_record(&self) -> bool {
        !self.failed
    }

    /// Queues the layers of a pass: replays their recording, records them, or calls `queue`.
    pub(super) fn run<A>(
        &mut self,
        device: &mut A,
        plan: &BatchPlan,
        queue: impl Fn(&mut A) -> Result<(), BackendError>,
    ) -> Result<(), BackendError>
    where
        A: Accelerator<Recording = R>,
    {
        // Passes on several ranks are not recorded: ranks wait for each other between launches, and a rank may be lost.
        if self.failed || plan.prefill.sequences > 0 || device.size() > 1 {
            return queue(device);
        }
        let key = (plan.decode.sequences, plan.decode.table_width);
        match self.passes.get(&key) {
            Some(Some(recording)) => device.replay(recording),
            // The first pass has already loaded the kernels and chosen the algorithms that the launches need.
            Some(None) => match device.record(&queue) {
                Ok(recording) => {
                    self.passes.insert(key, Some(recording));
                    Ok(())
                }
                // Queueing again is safe: launches that were already queued write the same values again.
                Err(error) => {
                    tracing::warn!(%error, "recording a pass failed; queueing passes launch by launch from now on");
                    *self = Self { passes: HashMap::new(), failed: true };
                    queue(device)
                }
            },
            None => {
                if self.passes.len() >= MAX_PASSES {
                    self.passes.clear();
                }
                self.passes.insert(key, None);
                queue(device)
            }
        }
    }
}
