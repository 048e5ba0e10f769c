//! Readers of a tokenizer's files.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::charsmap::check_charsmaps;
use crate::config::tokenizer_fields::check_tokenizer_config;
use crate::error::Error;

/// The special tokens that every class of transformers has, in its order: a token without an id gets the next one.
const NAMED_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The files next to tokenizer.json that describe the tokenizer. A file that does not exist is null.
#[derive(Debug)]
pub(super) struct TokenizerFiles {
    /// tokenizer_config.json.
    pub(super) config: Value,
    /// special_tokens_map.json, an older place for the special tokens.
    special_tokens_map: Value,
    /// added_tokens.json, an older place for added tokens and their ids.
    added_tokens: Value,
    /// chat_template.jinja, which takes precedence over the template in tokenizer_config.json.
    chat_template: Option<String>,
}

impl TokenizerFiles {
    /// Reads the files, and rejects settings that would change how a text is tokenized and are not supported.
    pub(super) fn read(dir: &Path) -> Result<Self, Error> {
        let config = read_optional_json(&dir.join("tokenizer_config.json"))?;
        check_tokenizer_config(&config)?;
        Ok(Self {
            config,
            special_tokens_map: read_optional_json(&dir.join("special_tokens_map.json"))?,
            added_tokens: read_optional_json(&dir.join("added_tokens.json"))?,
            chat_template: read_optional(&dir.join("chat_template.jinja"))?,
        })
    }

    /// Lists all special tokens that the files name: the fields whose names end in `_token`, then the lists.
    pub(super) fn special_tokens(&self) -> Vec<AddedToken> {
        let mut tokens: Vec<AddedToken> = NAMED_TOKENS.iter().filter_map(|name| self.named_token(name)).collect();
        let mut listed = Vec::new();
        for (name, value) in self.sources().into_iter().filter_map(Value::as_object).flatten() {
            match name.as_str() {
                "additional_special_tokens" | "extra_special_tokens" => {
                    let list = value.as_array().into_iter().flatten();
                    let named = value.as_object().into_iter().flat_map(Map::values);
                    listed.extend(list.chain(named).filter_map(|value| added_token(value, true)));
                }
                name if name.ends_with("_token") && !NAMED_TOKENS.contains(&name) => {
                    tokens.extend(added_token(value, true));
                }
                _ => {}
            }
        }
        tokens.append(&mut listed);
        tokens
    }

    /// Returns the files with special tokens: older ones count only if tokenizer_config.json has no
    /// `added_tokens_decoder`.
    fn sources(&self) -> Vec<&Value> {
        let has_decoder = self.config.get("added_tokens_decoder").is_some();
        if has_decoder { vec![&self.config] } else { vec![&self.config, &self.special_tokens_map] }
    }

    /// Returns a special token such as `bos_token`.
    pub(super) fn named_token(&self, name: &str) -> Option<AddedToken> {
        self.sources().into_iter().find_map(|file| added_token(file.get(name)?, true))
    }

    /// Lists the tokens in `added_tokens_decoder` of tokenizer_config.json or, if that is absent, in added_tokens.json,
    /// by id.
    pub(super) fn added_tokens(&self) -> Vec<AddedToken> {
        let mut by_id = BTreeMap::new();
        if let Some(decoder) = self.config.get("added_tokens_decoder") {
            for (id, value) in decoder.as_object().into_iter().flatten() {
                by_id.extend(id.parse::<u64>().ok().zip(added_token(value, false)));
            }
        } else {
            let special = self.special_tokens();
            for (text, id) in self.added_tokens.as_object().into_iter().flatten() {
                let is_special = special.iter().any(|token| token.content == *text);
                by_id.extend(id.as_u64().map(|id| (id, AddedToken::from(text.as_str(), is_special))));
            }
        }
        by_id.into_values().collect()
    }

    /// Returns the chat template. If tokenizer_config.json has several named ones, returns the one named `default`.
    pub(super) fn chat_template(&self) -> Option<&str> {
        if let Some(template) = &self.chat_template {
            return Some(template);
        }
        let value = self.config.get("chat_template")?;
        let is_default = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
        value.as_str().or_else(|| value.as_array()?.iter().find(is_default)?.get("template")?.as_str())
    }
}

/// Reads a token: a string, or an object with the text in `content` and flags. `is_special` makes the token special
/// even if its flag is `false`.
fn added_token(value: &Value, is_special: bool) -> Option<AddedToken> {
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let is_special = is_special || flag("special").unwrap_or(false);
    let mut token = AddedToken::from(token_text(value)?, is_special);
    token.single_word = flag("single_word").unwrap_or(token.single_word);
    token.lstrip = flag("lstrip").unwrap_or(token.lstrip);
    token.rstrip = flag("rstrip").unwrap_or(token.rstrip);
    token.normalized = flag("normalized").unwrap_or(token.normalized);
    Some(token)
}

fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

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
    check_charsmaps(&bytes).map_err(|reason| Error::malformed(&path, reason))?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| Error::malformed(&path, error))?;
    tokenizer.with_truncation(None).map_err(|error| Error::malformed(&path, error))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// Runs a step that loads a folder's tokenizer, and turns a panic of the tokenizers library into an error that names
/// tokenizer.json.
pub(super) fn catch_panic<T>(dir: &Path, load: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let reason = format!(
            "the tokenizers library panicked: {}; the file is corrupted or not supported",
            text.unwrap_or("no message")
        );
        Err(Error::malformed(&dir.join("tokenizer.json"), reason))
    })
}

/// Reads a JSON file; returns null if the file does not exist.
pub(super) fn read_optional_json(path: &Path) -> Result<Value, Error> {
    match read_optional(path)? {
        Some(text) => serde_json::from_str(&text).map_err(|error| Error::malformed(path, error)),
        None => Ok(Value::Null),
    }
}

fn read_optional(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}
