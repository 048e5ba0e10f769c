//! The files of a checkpoint's weights: one file, or several that an index names.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;

/// The weights, if they are one file.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";

/// The index that names the files of the weights, if they are several.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The contents of [`INDEX_FILE`].
#[derive(Deserialize)]
struct Index {
    /// Each tensor's file.
    weight_map: HashMap<String, String>,
}

/// Lists the weight files of a folder, sorted.
pub(super) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let single = dir.join(SINGLE_FILE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join(INDEX_FILE);
    if !index.exists() {
        return Err(Error::malformed(
            &single,
            "there is no such file, nor an index of several; weights have to be in safetensors, as transformers' \
             save_pretrained writes those of a pytorch_model.bin",
        ));
    }
    Ok(shard_names(&index)?.into_iter().map(|name| dir.join(name)).collect())
}

/// Reads the names of the files that an index lists, and rejects names that point outside its folder.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>, Error> {
    let text = std::fs::read_to_string(index).map_err(Error::io(index))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| Error::malformed(index, error))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(OsStr::new(name))) {
        return Err(Error::malformed(index, format!("{name:?} is not the name of a file beside it")));
    }
    Ok(names)
}
