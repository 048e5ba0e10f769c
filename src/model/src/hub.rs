//! Where a model is: a folder, or an id on the Hugging Face hub.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use serde_json::Value;

use crate::Error;

/// How often a download that was cut is taken up again.
const RETRIES: usize = 5;

/// The folder of a model: `model` itself if it is one, else the hub's `owner/name`, downloaded unless it is cached.
///
/// `HF_HOME` says where the cache is, `HF_ENDPOINT` where the hub is, `HF_TOKEN` who asks.
///
/// # Errors
///
/// It is neither a folder nor an id; a file of it is missing; the download failed.
pub fn resolve(model: &str) -> Result<PathBuf, Error> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    let not_found = |reason: String| Error::NotFound { name: model.to_owned(), reason };
    if !is_hub_id(model) {
        return Err(not_found(
            "there is no such folder; give a folder, or an id on the Hugging Face hub as owner/name".into(),
        ));
    }
    download(model).map_err(|error| {
        not_found(format!("{error}; is the id right, the hub reachable, and HF_TOKEN set if the model is gated?"))
    })
}

/// The config.json of a model, without its weights: in a folder, a file of its own, or on the hub.
///
/// # Errors
///
/// As [`resolve`].
pub fn config_json(model: &str) -> Result<PathBuf, Error> {
    let path = Path::new(model);
    if path.is_file() {
        return Ok(path.to_owned());
    }
    if path.is_dir() || !is_hub_id(model) {
        return resolve(model).map(|dir| dir.join("config.json"));
    }
    let failed = |error: ApiError| Error::NotFound { name: model.to_owned(), reason: format!("config.json: {error}") };
    api().map_err(failed)?.model(model.to_owned()).get("config.json").map_err(failed)
}

fn is_hub_id(model: &str) -> bool {
    let word = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.len() <= 96 && part.chars().all(allowed) && !part.starts_with('.')
    };
    model.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}

fn api() -> Result<Api, ApiError> {
    let builder = ApiBuilder::from_env().with_progress(true).with_retries(RETRIES);
    match std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
        Some(token) => builder.with_token(Some(token)).build(),
        None => builder.build(),
    }
}

fn download(id: &str) -> Result<PathBuf, String> {
    let repo = api().map_err(|error| error.to_string())?.model(id.to_owned());
    let get = |file: &str| repo.get(file).map_err(|error| format!("{file}: {error}"));
    let config = get("config.json")?;
    get("tokenizer.json")?;
    optional(&repo, "tokenizer_config.json")?;
    match optional(&repo, "model.safetensors.index.json")? {
        Some(index) => {
            for shard in shards(&index)? {
                get(&shard)?;
            }
        }
        None => {
            get("model.safetensors")?;
        }
    }
    config.parent().map(Path::to_owned).ok_or_else(|| format!("{} has no folder", config.display()))
}

/// A file that a model may do without: `None` if the hub says that there is no such file, or cannot be asked.
fn optional(repo: &ApiRepo, file: &str) -> Result<Option<PathBuf>, String> {
    match repo.get(file) {
        Ok(path) => Ok(Some(path)),
        Err(ApiError::RequestError(_)) => Ok(None),
        Err(error) => Err(format!("{file}: {error}")),
    }
}

fn shards(index: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(index).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let files = value.get("weight_map").and_then(Value::as_object).ok_or("the index has no weight_map")?;
    let mut names: Vec<String> = files.values().filter_map(|file| file.as_str().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_taken_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve(dir.path().to_str().unwrap()).unwrap(), dir.path());
    }

    #[test]
    fn what_is_neither_folder_nor_id_is_refused_without_asking_anyone() {
        for model in ["", "no-such-folder", "./no/such", "/no/such/folder", "a/b/c", "../x", "owner/na me"] {
            let error = resolve(model).unwrap_err().to_string();
            assert!(error.contains("no such folder"), "{model}: {error}");
        }
        assert!(is_hub_id("meta-llama/Llama-3.2-1B"));
    }

    #[test]
    fn the_index_names_each_shard_once() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.json");
        std::fs::write(&index, r#"{"weight_map":{"a":"2.safetensors","b":"1.safetensors","c":"2.safetensors"}}"#)
            .unwrap();
        assert_eq!(shards(&index).unwrap(), ["1.safetensors", "2.safetensors"]);
    }
}
