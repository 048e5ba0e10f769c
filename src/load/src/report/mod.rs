//! Reports: the outcomes of one workload on one server, as text, JSON and load curves.
//!
//! Start reading at [`Report`]. `html` makes the page, `charts` makes its curves, and `compare` compares two reports.

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

/// The outcomes of a load test, and everything needed to interpret and repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of surprisal.
    pub version: String,
    /// The server's address, prefixed with its dialect.
    pub server: String,
    /// Name of the served model.
    pub model: String,
    /// Fingerprint of everything that the log-probabilities depend on; `None` if the server reports none.
    pub fingerprint: Option<String>,
    /// Vocabulary size. Random token ids are less than this.
    pub vocabulary: u32,
    /// The workload.
    pub workload: Workload,
    /// Seed for the requests and their send times.
    pub seed: u64,
    /// Seconds of warm-up before each measurement.
    pub warm_up: f64,
    /// Outcomes, one per load and round.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Returns a report without outcomes, to which the caller adds them.
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

    /// Reads a report that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read or is not a report.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| failed(format!("not a result from `surprisal bench`: {error}")))
    }

    /// Writes the report as JSON, atomically: on failure, the old file remains unchanged.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written.
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
