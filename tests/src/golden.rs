//! Golden models: tiny checkpoints with the log-probabilities that transformers gives in float64.

use std::path::{Path, PathBuf};

/// Their folders, from the tests' own.
///
/// # Panics
///
/// There is no folder of them.
#[must_use]
pub fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("golden").expect("the tests' folder is the current one");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut fixtures: Vec<_> = paths.filter(|path| path.join("expected.json").exists()).collect();
    fixtures.sort();
    fixtures
}

/// The first text's tokens, and the log-probabilities of all but the first of them.
///
/// # Panics
///
/// The folder is no golden model's.
#[must_use]
pub fn case(dir: &Path) -> (Vec<u32>, Vec<f64>) {
    let text = std::fs::read_to_string(dir.join("expected.json")).expect("it is a golden model's folder");
    let expected: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let numbers = |field: &str| expected["cases"][0][field].as_array().into_iter().flatten();
    let tokens = numbers("tokens").filter_map(serde_json::Value::as_u64).map(|token| token as u32).collect();
    (tokens, numbers("logprobs").filter_map(serde_json::Value::as_f64).collect())
}
