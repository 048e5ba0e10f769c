//! The files beside the weights that decide a model's responses.

use std::path::{Path, PathBuf};

use crate::error::{Error, exists};

/// The files that every model has.
pub(crate) const REQUIRED_FILES: [&str; 2] = ["config.json", "tokenizer.json"];

/// The files that a model may lack. generation_config.json names tokens that end a generated text. The chat template
/// does not change a log-probability, but clients build prompts with it, because `/tokenizer_info` returns it.
pub(crate) const OPTIONAL_FILES: [&str; 5] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// Lists the files that exist in a folder, in the order of the tables, each with its name.
pub(super) fn existing_companions(dir: &Path) -> Result<Vec<(&'static str, PathBuf)>, Error> {
    let mut existing = Vec::new();
    for name in REQUIRED_FILES.into_iter().chain(OPTIONAL_FILES) {
        let path = dir.join(name);
        if exists(&path)? {
            existing.push((name, path));
        }
    }
    Ok(existing)
}
