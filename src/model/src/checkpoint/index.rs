//! The weight files of a checkpoint: one file, or several that an index lists.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, exists};

/// The weight file of a checkpoint that has only one.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";

/// The index file of a checkpoint that has several weight files.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The contents of [`INDEX_FILE`].
#[derive(Deserialize)]
struct Index {
    /// The name of the file that contains each tensor.
    weight_map: HashMap<String, String>,
}

/// Lists the weight files of a folder, sorted. Rejects a folder that has both a single file and shards.
pub(super) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let (single, index) = (dir.join(SINGLE_FILE), dir.join(INDEX_FILE));
    if exists(&single)? {
        if exists(&index)? && shard_names(&index)?.iter().any(|name| name != SINGLE_FILE) {
            let reason = format!("{INDEX_FILE} lists other files; remove either this file or the index");
            return Err(Error::malformed(&single, reason));
        }
        return Ok(vec![single]);
    }
    if !exists(&index)? {
        return Err(Error::malformed(
            &single,
            "no such file, and no model.safetensors.index.json; weights must be in safetensors (to convert a \
             pytorch_model.bin, load it with transformers and save it with save_pretrained)",
        ));
    }
    Ok(shard_names(&index)?.into_iter().map(|name| dir.join(name)).collect())
}

/// Returns the names of the files that an index lists, and rejects names that point outside its folder.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>, Error> {
    let text = std::fs::read_to_string(index).map_err(Error::io(index))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| Error::malformed(index, error))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(OsStr::new(name))) {
        return Err(Error::malformed(index, format!("{name:?} must be the name of a file in the same folder")));
    }
    Ok(names)
}
