//! Golden checkpoints: tiny checkpoints with log-probabilities from transformers in float64.

use std::path::{Path, PathBuf};

/// Returns the folders of all golden checkpoints. The current folder must be this crate's folder.
///
/// # Panics
///
/// If the current folder has no folder `golden`.
#[must_use]
pub fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("golden").expect("the current folder is that of the tests");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut fixtures: Vec<_> = paths.filter(|path| path.join("expected.json").exists()).collect();
    fixtures.sort();
    fixtures
}

/// Returns the tokens of the first text, and the log-probabilities of all its tokens except the first.
///
/// # Panics
///
/// If `dir` is not the folder of a golden checkpoint.
#[must_use]
pub fn case(dir: &Path) -> (Vec<u32>, Vec<f64>) {
    let text = std::fs::read_to_string(dir.join("expected.json")).expect("the folder has expected.json");
    let expected: serde_json::Value = serde_json::from_str(&text).expect("expected.json is JSON");
    let numbers = |field: &str| expected["cases"][0][field].as_array().into_iter().flatten();
    let tokens = numbers("tokens").filter_map(serde_json::Value::as_u64).map(|token| token as u32).collect();
    (tokens, numbers("logprobs").filter_map(serde_json::Value::as_f64).collect())
}
