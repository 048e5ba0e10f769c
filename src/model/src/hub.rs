//! Search for a model's folder, and downloads from the Hugging Face hub.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};

use crate::checkpoint::adapter::ADAPTER_CONFIG_FILE;
use crate::checkpoint::companions::{OPTIONAL_FILES, REQUIRED_FILES};
use crate::checkpoint::index::{INDEX_FILE, SINGLE_FILE, shard_names};
use crate::error::Error;

/// Maximum number of times that an interrupted download is resumed.
const RETRIES: usize = 5;

const CONFIG_FILE: &str = "config.json";

/// Returns a model's folder: `model` itself if it is a folder, or the cached copy of the hub model `owner/name`.
/// Downloads missing files.
///
/// The environment variables `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` set the cache folder, the hub's URL and the access
/// token.
///
/// # Errors
///
/// Fails if `model` is a file, or neither a folder nor a hub id, or if a file is missing on the hub or cannot be
/// downloaded.
pub fn resolve(model: &str) -> Result<PathBuf, Error> {
    let path = Path::new(model);
    // A failed lookup does not mean that the folder is absent.
    let is_file = match path.metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(path.to_owned()),
        Ok(_) => true,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => false,
        Err(error) => return Err(Error::io(path)(error)),
    };
    let not_found = |reason: String| Error::NotFound { name: model.to_owned(), reason };
    if is_file {
        return Err(not_found("it is a file; give the folder that contains it".into()));
    }
    if !is_hub_id(model) {
        return Err(not_found("no such folder; give a folder, or a Hugging Face hub id in the form owner/name".into()));
    }
    download(model).map_err(|error| {
        not_found(format!(
            "{error}; check the id and the connection to the hub, and set HF_TOKEN if the model is gated"
        ))
    })
}

/// Returns the path of a model's config.json. `model` is a folder, a `*.json` file, or a hub id; the weights are not
/// downloaded.
///
/// # Errors
///
/// Same as [`resolve`].
pub fn config_json(model: &str) -> Result<PathBuf, Error> {
    let path = Path::new(model);
    if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
        return Ok(path.to_owned());
    }
    if path.exists() || !is_hub_id(model) {
        return resolve(model).map(|dir| dir.join(CONFIG_FILE));
    }
    let failed = |error: ApiError| Error::NotFound {
        name: model.to_owned(),
        reason: format!(
            "{CONFIG_FILE}: {error}; check the id and the connection to the hub, and set HF_TOKEN if the model is gated"
        ),
    };
    api().map_err(failed)?.model(model.to_owned()).get(CONFIG_FILE).map_err(failed)
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
    let api = api().map_err(|error| error.to_string())?;
    let config = api.model(id.to_owned()).get(CONFIG_FILE).map_err(|error| format!("{CONFIG_FILE}: {error}"))?;
    let folder = config.parent().unwrap_or(Path::new("")).to_owned();
    let Some(commit) = folder.file_name().and_then(OsStr::to_str) else {
        return Err(format!("expected a folder named after a commit, got {}", folder.display()));
    };
    // Request missing files from this commit: "main" may have moved, and requesting "main" would move the cache's
    // reference too.
    let repo = api.repo(Repo::with_revision(id.to_owned(), RepoType::Model, commit.to_owned()));
    let files = ModelFiles { is_complete: has_weights(&folder), folder, repo };
    for file in REQUIRED_FILES {
        files.required(file)?;
    }
    for file in OPTIONAL_FILES {
        files.optional(file)?;
    }
    if !files.is_complete {
        // An adapter would change the model, so opening the folder fails if there is one.
        files.optional(ADAPTER_CONFIG_FILE)?;
        let weights = match files.optional(INDEX_FILE)? {
            Some(index) => shard_names(&index).map_err(|error| error.to_string())?,
            None => BTreeSet::from([SINGLE_FILE.to_owned()]),
        };
        for file in weights {
            files.required(&file)?;
        }
    }
    Ok(files.folder)
}

/// Returns whether the folder has all weights. Weights are downloaded last, so if they are complete, any other missing
/// file does not exist on the hub.
fn has_weights(folder: &Path) -> bool {
    let index = folder.join(INDEX_FILE);
    if index.exists() {
        return shard_names(&index).is_ok_and(|names| names.iter().all(|name| folder.join(name).exists()));
    }
    folder.join(SINGLE_FILE).exists()
}

/// The files of a model at one commit, in the cache folder or on the hub.
struct ModelFiles {
    folder: PathBuf,
    repo: ApiRepo,
    /// `true` if the folder has all weights.
    is_complete: bool,
}

impl ModelFiles {
    /// Returns a file's path in the cache, and downloads the file first if it is missing.
    fn get(&self, file: &str) -> Result<PathBuf, ApiError> {
        let path = self.folder.join(file);
        if path.exists() { Ok(path) } else { self.repo.download(file) }
    }

    /// Gets a file that a model must have.
    fn required(&self, file: &str) -> Result<PathBuf, String> {
        self.get(file).map_err(|error| format!("{file}: {error}"))
    }

    /// Gets a file that a model may lack. Returns `None` if the hub has no such file, or if the request fails but the
    /// folder has all weights.
    fn optional(&self, file: &str) -> Result<Option<PathBuf>, String> {
        match self.get(file) {
            Ok(path) => Ok(Some(path)),
            Err(ApiError::RequestError(error)) if matches!(*error, ureq::Error::StatusCode(404)) => Ok(None),
            Err(error) if self.is_complete => {
                tracing::warn!(file, %error, "download failed; continuing without the file");
                Ok(None)
            }
            Err(error) => Err(format!("{file}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_folder_is_returned_as_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve(dir.path().to_str().unwrap()).unwrap(), dir.path());
    }

    #[test]
    fn a_file_is_not_requested_from_the_hub() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for name in ["model.safetensors", "config.json"] {
            std::fs::write(path(name), "").unwrap();
            let error = resolve(&path(name)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("give the folder that contains it"), "{error}");
        }
        assert!(config_json(&path("model.safetensors")).unwrap_err().to_string().contains("give the folder"));
        assert_eq!(config_json(&path("config.json")).unwrap(), dir.path().join("config.json"));
    }

    #[test]
    fn a_name_that_is_neither_a_folder_nor_a_hub_id_is_rejected_without_a_request() {
        for model in ["", "no-such-folder", "./no/such", "/no/such/folder", "a/b/c", "../x", "owner/na me"] {
            let error = resolve(model).unwrap_err().to_string();
            assert!(error.contains("no such folder"), "{model}: {error}");
        }
        assert!(is_hub_id("meta-llama/Llama-3.2-1B"));
    }

    #[test]
    fn weights_are_complete_when_every_shard_is_cached() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        assert!(!has_weights(dir.path()));
        put(SINGLE_FILE, "");
        assert!(has_weights(dir.path()));
        put(INDEX_FILE, r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"1.safetensors"}}"#);
        put("1.safetensors", "");
        assert!(!has_weights(dir.path()));
        put("2.safetensors", "");
        assert!(has_weights(dir.path()));
    }
}
