//! Readers of a tokenizer's files.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::Error;

/// Reads a folder's tokenizer.json, and disables truncation and padding.
pub(super) fn read_tokenizer(dir: &Path) -> Result<Tokenizer, Error> {
    let path = dir.join("tokenizer.json");
    let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::malformed(
            &path,
            "no such file, but a model needs one; to convert a tokenizer.model, load it with transformers' \
             AutoTokenizer.from_pretrained and save it with save_pretrained",
        ),
        _ => Error::io(&path)(error),
    })?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| Error::malformed(&path, error))?;
    tokenizer.with_truncation(None).map_err(|error| Error::malformed(&path, error))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// Reads a JSON file; returns null if the file does not exist.
pub(super) fn read_optional_json(path: &Path) -> Result<Value, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| Error::malformed(path, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(Error::io(path)(error)),
    }
}
