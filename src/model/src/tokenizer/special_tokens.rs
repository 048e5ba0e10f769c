//! The rules for special tokens: the tokens that end a text, and whether BOS or a space precedes every text.

use std::path::Path;

use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, Tokenizer};

use super::files::read_optional_json;
use crate::error::Error;

/// Lists the tokens that end a text: `eos`, and the tokens in `eos_token_id` (an id or a list of ids) of config.json
/// and generation_config.json. Omits ids outside the vocabulary of `size` tokens.
pub(super) fn end_token_ids(dir: &Path, eos: Option<u32>, size: usize) -> Result<Vec<u32>, Error> {
    let mut ids = Vec::from_iter(eos);
    for file in ["config.json", "generation_config.json"] {
        let config = read_optional_json(&dir.join(file))?;
        let Some(value) = config.get("eos_token_id") else { continue };
        let listed = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        ids.extend(listed.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
    }
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|&id| (id as usize) < size);
    Ok(ids)
}

/// Returns a special token's text from tokenizer_config.json: a string, or an object with `content`.
pub(super) fn special_token<'a>(config: &'a Value, name: &str) -> Option<&'a str> {
    let value = config.get(name)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// Returns whether BOS is added before every text. The first of the following that exists decides: `add_bos_token` in
/// tokenizer_config.json, the tokenizer's post-processor, the tokenizer's class.
pub(super) fn adds_bos(tokenizer: &Tokenizer, config: &Value, bos: Option<u32>) -> bool {
    if let Some(adds_bos) = config.get("add_bos_token").and_then(Value::as_bool) {
        return adds_bos;
    }
    let Some(bos) = bos else { return false };
    if tokenizer.get_post_processor().is_some() {
        return tokenizer.encode_fast("", true).is_ok_and(|encoding| encoding.get_ids().first() == Some(&bos));
    }
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    class.starts_with("LlamaTokenizer")
}

/// Returns whether the normalizer adds a space before every text, even one that begins with a space.
pub(super) fn adds_space(tokenizer: &Tokenizer) -> bool {
    let mut text = NormalizedString::from(" a");
    let normalized = tokenizer.get_normalizer().is_some_and(|normalizer| normalizer.normalize(&mut text).is_ok());
    normalized && text.get().starts_with("\u{2581}\u{2581}")
}
