//! The progress of reading a checkpoint.

use std::sync::{Mutex, PoisonError};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use surprisal_model::ReadPurpose;

use super::LOG_TARGET;

/// The size of the smallest checkpoint whose progress is shown, in bytes; smaller ones load quickly.
const MIN_SHOWN_BYTES: u64 = 128 << 20;

/// The progress of reading a large checkpoint, once for checksums and once for weights. Several threads may update it.
pub(crate) struct WeightsBar {
    bar: ProgressBar,
    size: u64,
    state: Mutex<ReadState>,
}

/// The progress of each read, checksums first, then weights.
#[derive(Default)]
struct ReadState {
    bytes: [u64; 2],
    /// Last logged progress of each read, in tenths of the bytes.
    logged_tenths: [u64; 2],
}

impl WeightsBar {
    /// Creates a bar for a checkpoint of this total size in bytes.
    pub(crate) fn new(size: u64) -> Self {
        let bar = if size < MIN_SHOWN_BYTES { ProgressBar::hidden() } else { ProgressBar::new(size) };
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}") {
            bar.set_style(style);
        }
        Self { bar, size, state: Mutex::default() }
    }

    /// Records that this number of bytes was read.
    pub(crate) fn update(&self, purpose: ReadPurpose, bytes: u64) {
        if self.size < MIN_SHOWN_BYTES {
            return;
        }
        let (stage, message) = match purpose {
            ReadPurpose::Checksums => (0, "checking weights"),
            ReadPurpose::Weights => (1, "loading weights"),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Capped, because tensors that every rank reads count several times.
        let read = (state.bytes[stage] + bytes).min(self.size);
        state.bytes[stage] = read;
        self.bar.set_message(message);
        self.bar.set_position(read);
        let tenths = read * 10 / self.size;
        if self.bar.is_hidden() && tenths > std::mem::replace(&mut state.logged_tenths[stage], tenths) {
            tracing::info!(target: LOG_TARGET, read = %HumanBytes(read), of = %HumanBytes(self.size), "{message}");
        }
    }

    /// Removes the bar from the terminal.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
