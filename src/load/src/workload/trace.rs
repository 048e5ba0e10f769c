//! Recorded requests, read from a file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::request::{LatencyClass, PairRequest};
use crate::error::Error;

/// Recorded requests, one JSON object per line (see [`TraceLine`]). After the last request, the trace repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Path of the file.
    pub path: PathBuf,
    /// Requests, in the order of the file.
    #[serde(skip)]
    pub(super) lines: Vec<PairRequest>,
    /// Number of requests.
    pub requests: usize,
}

/// One line of a trace: a request with texts as token ids.
///
/// ```
/// let line = r#"{"contexts": [[0, 7]], "targets": [[9, 4], [5]], "pairs": [[0, 0], [0, 1]], "class": "interactive"}"#;
/// let line: surprisal_load::TraceLine = serde_json::from_str(line)?;
/// assert_eq!(line.targets[1], [5]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object with `contexts` and `targets`")]
pub struct TraceLine {
    /// Contexts, each of at least one token.
    pub contexts: Vec<Vec<u32>>,
    /// Targets to score, each of at least one token.
    pub targets: Vec<Vec<u32>>,
    /// Queries as indices `[context, target]`; if absent, every combination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Vec<[usize; 2]>>,
    /// Class of the latency; if absent, bulk.
    #[serde(default)]
    pub class: LatencyClass,
}

impl Trace {
    /// Reads the trace in a file.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let mut lines = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            lines.push(parse_line(line).map_err(|reason| failed(format!("line {}: {reason}", i + 1)))?);
        }
        if lines.is_empty() {
            return Err(failed("the file has no requests; write one JSON object per line".into()));
        }
        Ok(Self { path: path.to_owned(), requests: lines.len(), lines })
    }
}

fn parse_line(line: &str) -> Result<PairRequest, String> {
    let line: TraceLine = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let TraceLine { contexts, targets, pairs, class } = line;
    let request = match pairs {
        Some(pairs) => PairRequest { contexts, targets, pairs, class },
        None => PairRequest::all_pairs(contexts, targets, class),
    };
    check(&request)?;
    Ok(request)
}

/// Checks that a request has a pair, that no text is empty, and that every pair refers to texts of the request.
fn check(request: &PairRequest) -> Result<(), String> {
    let (contexts, targets) = (request.contexts.len(), request.targets.len());
    if request.pairs.is_empty() || request.contexts.iter().chain(&request.targets).any(Vec::is_empty) {
        return Err("a request must have at least one pair and no empty text".into());
    }
    match request.pairs.iter().find(|&&[i, j]| i >= contexts || j >= targets) {
        Some(pair) => Err(format!("pairs has {pair:?}, but the request has {contexts} contexts and {targets} targets")),
        None => Ok(()),
    }
}
