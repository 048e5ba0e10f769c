//! The progress of reading a checkpoint.

use std::sync::{Mutex, PoisonError};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use surprisal_model::ReadPurpose;

use super::LOG_TARGET;

/// The size of a checkpoint whose progress is shown, in bytes; smaller ones are read at once.
const MIN_SHOWN_BYTES: u64 = 128 << 20;

/// The progress of reading a large checkpoint, once for its checksums and once for its weights. Several threads may update it.
pub(crate) struct WeightsBar {
    bar: ProgressBar,
    size: u64,
    state: Mutex<ReadState>,
}

/// The progress of both reads: for the checksums, and for the weights.
#[derive(Default)]
struct ReadState {
    bytes: [u64; 2],
    /// Tenths that were logged.
    logged_tenths: [u64; 2],
}

impl WeightsBar {
    /// Creates a bar for files of this size together, in bytes.
    pub(crate) fn new(size: u64) -> Self {
        let bar = if size < MIN_SHOWN_BYTES { ProgressBar::hidden() } else { ProgressBar::new(size) };
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}") {
            bar.set_style(style);
        }
        Self { bar, size, state: Mutex::default() }
    }

    /// Adds bytes that were read.
    pub(crate) fn update(&self, purpose: ReadPurpose, bytes: u64) {
        if self.size < MIN_SHOWN_BYTES {
            return;
        }
        let (stage, message) = match purpose {
            ReadPurpose::Checksums => (0, "checking weights"),
            ReadPurpose::Weights => (1, "loading weights"),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The minimum: tensors that every rank reads for itself count several times.
        let read = (state.bytes[stage] + bytes).min(self.size);
        state.bytes[stage] = read;
        self.bar.set_message(message);
        self.bar.set_position(read);
        let tenths = read * 10 / self.size;
        if self.bar.is_hidden() && tenths > std::mem::replace(&mut state.logged_tenths[stage], tenths) {
            tracing::info!(target: LOG_TARGET, read = %HumanBytes(read), of = %HumanBytes(self.size), "{message}");
        }
    }

    /// Leaves the terminal as it was.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
