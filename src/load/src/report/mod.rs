//! Outcomes of one workload on one server, as text, as a file and as load curves.
//!
//! Start reading at [`Report`]. `html` makes its page, `charts` the curves in it, and `compare` the ratios of two reports.

mod charts;
mod compare;
mod file;
mod html;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::client::Target;
use crate::error::Error;
use crate::measure::Options;
use crate::outcome::Outcome;
use crate::workload::Workload;
pub use compare::{Comparison, FailureCounts, Ratio};
use file::write_atomically;

/// Everything one needs to read the numbers, and to measure them again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// Where the server was, with its API.
    pub server: String,
    /// The model it served.
    pub model: String,
    /// What its numbers depend on, if it says so.
    pub fingerprint: Option<String>,
    /// Token ids were drawn below it.
    pub vocabulary: u32,
    /// What was asked.
    pub workload: Workload,
    /// Decided every request.
    pub seed: u64,
    /// Seconds of warm-up before each measurement.
    pub warm_up: f64,
    /// One a load and round.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// An empty report of what is about to be measured.
    pub fn new(target: &Target, workload: &Workload, options: &Options) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server: target.endpoint.to_string(),
            model: target.model.clone(),
            fingerprint: target.fingerprint.clone(),
            vocabulary: target.vocabulary,
            workload: workload.clone(),
            seed: options.seed,
            warm_up: options.warm_up.as_secs_f64(),
            outcomes: Vec::new(),
        }
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`Error::File`] if it is none.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| failed(format!("no result of a measurement: {error}")))
    }

    /// Writes the report as JSON, atomically: the file is there whole or as it was.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |reason: String| Error::File { path: path.to_owned(), reason };
        let json = serde_json::to_vec_pretty(self).map_err(|error| failed(error.to_string()))?;
        write_atomically(path, &json)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} at {}", self.model, self.server)?;
        self.outcomes.iter().try_for_each(|outcome| write!(f, "{outcome}"))
    }
}
