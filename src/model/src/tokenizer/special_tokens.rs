//! The rules for special tokens: those that the tokenizer adds around every text, and those that end a text.

use std::path::Path;

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use super::files::{TokenizerFiles, read_optional_json};
use crate::error::Error;

/// The tokens that the tokenizer adds around every text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    /// Tokens before every text.
    pub(super) prefix: Vec<u32>,
    /// Tokens after every text.
    pub(super) suffix: Vec<u32>,
}

impl Template {
    /// Encodes a text with and without special tokens, and returns the tokens that stand around it.
    ///
    /// # Errors
    ///
    /// Returns the reason if the tokens of the text do not stand between the special tokens.
    pub(super) fn probe(tokenizer: &Tokenizer) -> Result<Self, String> {
        let Some((text, ids)) = encodable_text(tokenizer) else { return Ok(Self::default()) };
        let all =
            tokenizer.encode_fast(text.as_str(), true).map_err(|error| format!("cannot encode {text:?}: {error}"))?;
        let all = all.get_ids();
        let Some(at) = all.windows(ids.len()).position(|window| window == ids) else {
            return Err(format!("the post_processor changes the tokens of {text:?} from {ids:?} to {all:?}"));
        };
        Ok(Self { prefix: all[..at].to_vec(), suffix: all[at + ids.len()..].to_vec() })
    }

    /// Iterates over all tokens of the template.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.prefix.iter().chain(&self.suffix).copied()
    }

    /// Warns if tokenizer_config.json contradicts the template. transformers has ignored these settings since version
    /// 5; earlier versions obey them for some classes.
    pub(super) fn warn_if_contradicted(&self, config: &Value) {
        for (setting, added) in [("add_bos_token", &self.prefix), ("add_eos_token", &self.suffix)] {
            let declared = config.get(setting).and_then(Value::as_bool);
            if declared.is_some_and(|declared| declared == added.is_empty()) {
                tracing::warn!(
                    setting,
                    value = declared,
                    added_tokens = ?added,
                    "tokenizer_config.json contradicts tokenizer.json; using tokenizer.json"
                );
            }
        }
    }
}

/// Returns a text that the tokenizer can encode, and its tokens: the letter "a", or else a word of the vocabulary, for
/// tokenizers that know no letters.
pub(super) fn encodable_text(tokenizer: &Tokenizer) -> Option<(String, Vec<u32>)> {
    let words = std::iter::once_with(|| ordinary_words(tokenizer)).flatten();
    std::iter::once("a".to_owned()).chain(words).find_map(|text| {
        let encoding = tokenizer.encode_fast(text.as_str(), false).ok()?;
        let ids = encoding.get_ids().to_vec();
        (!ids.is_empty()).then_some((text, ids))
    })
}

/// Lists the words of the vocabulary that are not added tokens, by id.
fn ordinary_words(tokenizer: &Tokenizer) -> Vec<String> {
    let added = tokenizer.get_added_vocabulary().get_vocab();
    let mut words: Vec<(String, u32)> = tokenizer.get_vocab(false).into_iter().collect();
    words.retain(|(word, _)| !added.contains_key(word));
    words.sort_unstable_by_key(|&(_, id)| id);
    words.into_iter().map(|(word, _)| word).collect()
}

/// Adds the tokens that the files next to tokenizer.json name, with their flags, as transformers does. A text may contain
/// a special token.
pub(super) fn add_named_tokens(tokenizer: &mut Tokenizer, files: &TokenizerFiles) {
    let existing = tokenizer.get_added_tokens_decoder();
    let mut new: Vec<AddedToken> = files.added_tokens();
    new.retain(|token| !existing.values().any(|other| other == token));
    let named = files.special_tokens();
    for token in &named {
        let is_known = existing.values().chain(&new).any(|other| other.content == token.content);
        if !is_known {
            new.push(token.clone());
        }
    }
    tokenizer.add_tokens(&new);
    tokenizer.add_special_tokens(&named);
    let splits = files.config.get("split_special_tokens").and_then(Value::as_bool);
    tokenizer.set_encode_special_tokens(splits.unwrap_or(false));
}

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
