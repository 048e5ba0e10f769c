//! The greatest length of the text that one token stands for, and the memory for encoding a text.
//!
//! The bound follows from the parts of a tokenizer. A normalizer may shorten a text by a factor, or drop any part of
//! it; a pre-tokenizer may drop characters, such as spaces; a model may have one "unknown" token for any number of
//! characters.

use serde::Serialize;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::{Model, ModelWrapper, Tokenizer};

/// The greatest factor by which Unicode normalization or lowercasing shortens a text in UTF-8. Normalization to NFKC
/// shortens a bold digit from four bytes to one; no sequence of characters shrinks more.
const UNICODE_FACTOR: usize = 4;

/// The longest character in UTF-8, in bytes.
const MAX_CHAR_BYTES: usize = 4;

/// Returns the greatest number of bytes of text that one token can stand for; `None` if there is no bound, or if it is
/// not known.
pub(super) fn max_token_bytes(tokenizer: &Tokenizer) -> Option<usize> {
    let normalizer = description(tokenizer.get_normalizer())?;
    let pre_tokenizer = description(tokenizer.get_pre_tokenizer())?;
    let factor = shortening(&normalizer)?;
    let added = tokenizer.get_added_tokens_decoder();
    // Such a token includes all spaces next to it.
    let strips_spaces = added.values().any(|token| token.lstrip || token.rstrip);
    if strips_spaces || !keeps_text(&pre_tokenizer) {
        return None;
    }
    let is_byte_level = has_byte_level(&normalizer) || has_byte_level(&pre_tokenizer);
    if !covers_text(tokenizer, is_byte_level) {
        return None;
    }
    // A character of a byte-level token stands for one byte.
    let bytes = |name: &String| if is_byte_level { name.chars().count() } else { name.len() };
    let longest = tokenizer.get_vocab(false).keys().map(bytes).max().unwrap_or(0);
    let longest_added = added.values().map(|token| token.content.len()).max().unwrap_or(0);
    Some(longest.max(longest_added).max(MAX_CHAR_BYTES) * factor)
}

/// Returns the memory that encoding takes per byte of a text, in bytes. The constants are measured with tokens of one
/// byte, the worst case; a test of the server's memory checks them.
pub(super) fn encoding_bytes(tokenizer: &Tokenizer) -> usize {
    let base = match tokenizer.get_model() {
        ModelWrapper::Unigram(_) => 576,
        ModelWrapper::BPE(_) | ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => 256,
    };
    base * description(tokenizer.get_normalizer()).as_ref().map_or(1, expansion)
}

/// Returns the factor by which a normalizer may lengthen a text, apart from spaces, which the measurements include.
fn expansion(normalizer: &Value) -> usize {
    match kind_and_steps(normalizer) {
        ("Sequence", steps) => steps.iter().map(expansion).product(),
        // The maxima that UAX #15 states for UTF-8.
        ("NFC" | "NFD", _) => 3,
        ("NFKC" | "NFKD" | "Precompiled", _) => 11,
        ("ByteLevel", _) => 2,
        _ => 1,
    }
}

/// Returns a part of a tokenizer as tokenizer.json describes it; null for a part that it does not have.
fn description(part: Option<&impl Serialize>) -> Option<Value> {
    serde_json::to_value(part).ok()
}

/// Returns the type of a part, and the steps of a sequence.
fn kind_and_steps(part: &Value) -> (&str, &[Value]) {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let steps = part.get("normalizers").or_else(|| part.get("pretokenizers")).and_then(Value::as_array);
    (kind, steps.map(Vec::as_slice).unwrap_or_default())
}

/// Returns the greatest factor by which a normalizer shortens a text; `None` if it may drop any part of it.
fn shortening(normalizer: &Value) -> Option<usize> {
    if normalizer.is_null() {
        return Some(1);
    }
    match kind_and_steps(normalizer) {
        ("Sequence", steps) => steps.iter().try_fold(1_usize, |factor, step| factor.checked_mul(shortening(step)?)),
        ("NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase", _) => Some(UNICODE_FACTOR),
        ("Prepend" | "ByteLevel", _) => Some(1),
        ("Replace", _) => {
            let replaced = normalizer["pattern"]["String"].as_str()?;
            let content = normalizer["content"].as_str().filter(|content| !content.is_empty())?;
            Some(replaced.len().div_ceil(content.len()).max(1))
        }
        _ => None,
    }
}

/// Returns `true` if a pre-tokenizer keeps every character of a text.
fn keeps_text(pre_tokenizer: &Value) -> bool {
    if pre_tokenizer.is_null() {
        return true;
    }
    match kind_and_steps(pre_tokenizer) {
        ("Sequence", steps) => steps.iter().all(keeps_text),
        ("ByteLevel" | "Metaspace" | "Digits" | "UnicodeScripts" | "FixedLength", _) => true,
        ("Split" | "Punctuation", _) => pre_tokenizer["behavior"] != "Removed",
        _ => false,
    }
}

/// Returns `true` if a part spells each byte of a text as one character.
fn has_byte_level(part: &Value) -> bool {
    let (kind, steps) = kind_and_steps(part);
    kind == "ByteLevel" || steps.iter().any(has_byte_level)
}

/// Returns `true` if the model encodes every character of a normalized text, and no token stands for several unknown
/// characters.
fn covers_text(tokenizer: &Tokenizer, is_byte_level: bool) -> bool {
    let byte_names = || (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    match tokenizer.get_model() {
        ModelWrapper::BPE(BPE { continuing_subword_prefix: Some(prefix), .. }) if !prefix.is_empty() => false,
        ModelWrapper::BPE(BPE { end_of_word_suffix: Some(suffix), .. }) if !suffix.is_empty() => false,
        ModelWrapper::BPE(model) => {
            let has_one_token_per_unknown = model.unk_token.is_some() && !model.fuse_unk;
            has_one_token_per_unknown
                || is_byte_level && has_all(tokenizer, super::pieces::byte_chars().map(String::from))
                || model.byte_fallback && has_all(tokenizer, byte_names())
        }
        // A unigram model joins unknown characters to one token.
        ModelWrapper::Unigram(model) => model.byte_fallback() && has_all(tokenizer, byte_names()),
        ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => false,
    }
}

/// Returns `true` if the model's vocabulary has all names.
fn has_all(tokenizer: &Tokenizer, mut names: impl Iterator<Item = String>) -> bool {
    names.all(|name| tokenizer.get_model().token_to_id(&name).is_some())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn bound(normalizer: Value, pre_tokenizer: Value, model: Value, added: Value) -> Option<usize> {
        let json = json!({"version": "1.0", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model,
            "added_tokens": added, "truncation": null, "padding": null, "post_processor": null, "decoder": null});
        max_token_bytes(&Tokenizer::from_bytes(json.to_string()).unwrap())
    }

    /// Returns a byte-level BPE model, whose longest token `Ġ*10` stands for ten spaces.
    fn byte_level() -> Value {
        let mut vocab: BTreeMap<String, usize> =
            super::super::pieces::byte_chars().enumerate().map(|(id, char)| (char.to_string(), id)).collect();
        vocab.insert("Ġ".repeat(10), 256);
        json!({"type": "BPE", "vocab": vocab, "merges": []})
    }

    fn byte_fallback(unk: bool) -> Value {
        let mut vocab: BTreeMap<String, usize> = (0..256).map(|byte| (format!("<0x{byte:02X}>"), byte)).collect();
        vocab.insert("▁▁".to_owned(), 256);
        let mut model = json!({"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true, "fuse_unk": true});
        if unk {
            vocab.remove("<0x61>");
            vocab.insert("<unk>".to_owned(), 97);
            (model["vocab"], model["unk_token"]) = (json!(vocab), json!("<unk>"));
        }
        model
    }

    #[test]
    fn the_longest_token_bounds_a_text() {
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let split = |behavior: &str| json!({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": behavior, "invert": false});
        let sequence = |steps: Value| json!({"type": "Sequence", "pretokenizers": steps});
        let added = |lstrip: bool| {
            json!([{"id": 300, "content": "<a long special token>", "single_word": false, "lstrip": lstrip, "rstrip": false,
                "normalized": false, "special": true}])
        };
        let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": "abc"}, "content": content});
        let nothing = || Value::Null;
        let none = || json!([]);
        for (found, expected) in [
            (bound(nothing(), level.clone(), byte_level(), none()), Some(10)),
            (bound(json!({"type": "NFC"}), level.clone(), byte_level(), none()), Some(40)),
            (bound(nothing(), sequence(json!([split("Isolated"), level])), byte_level(), none()), Some(10)),
            (bound(nothing(), sequence(json!([split("Removed"), level])), byte_level(), none()), None),
            (bound(nothing(), level.clone(), byte_level(), added(false)), Some(22)),
            (bound(nothing(), level.clone(), byte_level(), added(true)), None),
            // Without byte-level spelling, this model drops the characters that it does not know.
            (bound(nothing(), nothing(), byte_level(), none()), None),
            (bound(nothing(), nothing(), byte_fallback(false), none()), Some(6)),
            (bound(replace("▁"), nothing(), byte_fallback(false), none()), Some(6)),
            (bound(replace("x"), nothing(), byte_fallback(false), none()), Some(18)),
            (bound(replace(""), nothing(), byte_fallback(false), none()), None),
            (
                bound(
                    json!({"type": "Strip", "strip_left": true, "strip_right": true}),
                    nothing(),
                    byte_fallback(false),
                    none(),
                ),
                None,
            ),
            // A byte is missing, so any number of letters becomes one unknown token.
            (bound(nothing(), nothing(), byte_fallback(true), none()), None),
        ] {
            assert_eq!(found, expected);
        }
        let words = json!({"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"});
        assert_eq!(bound(nothing(), json!({"type": "WhitespaceSplit"}), words, none()), None);
        let unigram =
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]], "byte_fallback": false});
        assert_eq!(bound(nothing(), nothing(), unigram, none()), None);
    }
}
