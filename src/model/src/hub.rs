//! Where a model is: a folder, or an id on the Hugging Face hub.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo};

use crate::Error;
use crate::checkpoint::shard_names;

/// How often a download that was cut is taken up again.
const RETRIES: usize = 5;

/// The weights, if they are one file.
const SINGLE: &str = "model.safetensors";

/// What names the files of the weights, if they are several.
const INDEX: &str = "model.safetensors.index.json";

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
    let complete = has_weights(&Cache::from_env().model(id.to_owned()));
    let config = get("config.json")?;
    get("tokenizer.json")?;
    for file in ["tokenizer_config.json", "generation_config.json"] {
        optional(&repo, file, complete)?;
    }
    if !complete {
        let weights = match optional(&repo, INDEX, complete)? {
            Some(index) => shard_names(&index).map_err(|error| error.to_string())?,
            None => BTreeSet::from([SINGLE.to_owned()]),
        };
        for file in weights {
            get(&file)?;
        }
    }
    config.parent().map(Path::to_owned).ok_or_else(|| format!("{} has no folder", config.display()))
}

/// Whether all weights are in the cache. They are downloaded last: what it lacks then, the hub said that it does not have.
fn has_weights(cache: &CacheRepo) -> bool {
    match cache.get(INDEX) {
        Some(index) => shard_names(&index).is_ok_and(|names| names.iter().all(|name| cache.get(name).is_some())),
        None => cache.get(SINGLE).is_some(),
    }
}

/// A file that a model may do without: `None` if the hub says that there is no such file, or fails to while the cache is
/// complete without it.
fn optional(repo: &ApiRepo, file: &str, complete: bool) -> Result<Option<PathBuf>, String> {
    match repo.get(file) {
        Ok(path) => Ok(Some(path)),
        Err(ApiError::RequestError(error)) if matches!(*error, ureq::Error::StatusCode(404)) => Ok(None),
        Err(ApiError::RequestError(error)) if complete => {
            tracing::warn!("{file} is not in the cache, and the hub cannot be asked for it: {error}");
            Ok(None)
        }
        Err(error) => Err(format!("{file}: {error}")),
    }
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
    fn weights_are_cached_when_every_shard_is() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned()).model("owner/name".to_owned());
        cache.create_ref("commit").unwrap();
        let snapshot = cache.pointer_path("commit");
        std::fs::create_dir_all(&snapshot).unwrap();
        let put = |file: &str, text: &str| std::fs::write(snapshot.join(file), text).unwrap();
        assert!(!has_weights(&cache));
        put(SINGLE, "");
        assert!(has_weights(&cache));
        put(INDEX, r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"1.safetensors"}}"#);
        put("1.safetensors", "");
        assert!(!has_weights(&cache));
        put("2.safetensors", "");
        assert!(has_weights(&cache));
    }
}
