//! Passes that come again: of single tokens alone, which take about as long to queue, launch by launch, as to compute. The second time
//! one comes it is recorded, and from then on queued as one, a CUDA graph on a GPU. A device that refuses to record one is not asked again.

use std::collections::HashMap;

use super::accelerator::Accelerator;
use super::forward::Done;
use super::plan::Plan;

/// Recordings that are kept; where there are more, all begin anew.
const MOST: usize = 64;

/// What a pass's launches depend on beside what is on the device: so many sequences, tables so wide.
type Key = (usize, usize);

/// Passes that came, and those that were recorded.
#[derive(Debug)]
pub(super) struct Graphs<R> {
    passes: HashMap<Key, Option<R>>,
    /// Whether the device has refused to record one.
    refused: bool,
}

impl<R> Default for Graphs<R> {
    fn default() -> Self {
        Self { passes: HashMap::new(), refused: false }
    }
}

impl<R> Graphs<R> {
    /// Whether the device records passes, as far as is known.
    pub(super) fn records(&self) -> bool {
        !self.refused
    }

    /// Queues a pass's layers, as `queue` does.
    pub(super) fn run<A>(&mut self, device: &mut A, plan: &Plan, queue: impl Fn(&mut A) -> Done) -> Done
    where
        A: Accelerator<Recording = R>,
    {
        // Ranks wait for each other between launches, where one of them may be lost.
        if self.refused || plan.prefill.sequences > 0 || device.size() > 1 {
            return queue(device);
        }
        let key = (plan.decode.sequences, plan.decode.table_width);
        match self.passes.get(&key) {
            Some(Some(recording)) => device.replay(recording),
            // Whatever a launch needs was loaded and chosen the first time.
            Some(None) => match device.record(&queue) {
                Ok(recording) => {
                    self.passes.insert(key, Some(recording));
                    Ok(())
                }
                // What was queued of it writes the same once more.
                Err(error) => {
                    tracing::warn!(%error, "the device does not record a pass: passes are queued launch by launch");
                    *self = Self { passes: HashMap::new(), refused: true };
                    queue(device)
                }
            },
            None => {
                if self.passes.len() >= MOST {
                    self.passes.clear();
                }
                self.passes.insert(key, None);
                queue(device)
            }
        }
    }
}
