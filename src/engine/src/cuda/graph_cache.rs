//! `GraphCache`: recordings of repeated passes.
//!
//! A pass of single tokens takes about as long to queue, launch by launch, as to compute. The second time such a pass comes it is recorded,
//! and from then on queued as a whole, as a CUDA graph on a GPU. If the device fails to record a pass, no other is recorded.

use std::collections::HashMap;

use super::accelerator::Accelerator;
use super::batch_plan::BatchPlan;
use crate::backend::BackendError;

/// Passes in the cache; it is cleared when there are more.
const MAX_PASSES: usize = 64;

/// The number of sequences and the width of their block tables, on which a pass's launches depend.
type PassKey = (usize, usize);

/// The passes so far, and their recordings from the second time on.
#[derive(Debug)]
pub(super) struct GraphCache<R> {
    passes: HashMap<PassKey, Option<R>>,
    /// True if the device has failed to record a pass.
    failed: bool,
}

impl<R> Default for GraphCache<R> {
    fn default() -> Self {
        Self { passes: HashMap::new(), failed: false }
    }
}

impl<R> GraphCache<R> {
    /// Returns whether the device records passes, as far as is known.
    pub(super) fn can_record(&self) -> bool {
        !self.failed
    }

    /// Queues a pass's layers: replays their recording, records them, or calls `queue`.
    pub(super) fn run<A>(
        &mut self,
        device: &mut A,
        plan: &BatchPlan,
        queue: impl Fn(&mut A) -> Result<(), BackendError>,
    ) -> Result<(), BackendError>
    where
        A: Accelerator<Recording = R>,
    {
        // Ranks wait for each other between launches, and one of them may be lost.
        if self.failed || plan.prefill.sequences > 0 || device.size() > 1 {
            return queue(device);
        }
        let key = (plan.decode.sequences, plan.decode.table_width);
        match self.passes.get(&key) {
            Some(Some(recording)) => device.replay(recording),
            // The first pass loaded and chose whatever its launches need.
            Some(None) => match device.record(&queue) {
                Ok(recording) => {
                    self.passes.insert(key, Some(recording));
                    Ok(())
                }
                // Launches that were queued already write the same values again.
                Err(error) => {
                    tracing::warn!(%error, "the device does not record a pass: passes are queued launch by launch");
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
