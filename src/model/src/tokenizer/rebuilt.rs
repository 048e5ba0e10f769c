//! Tokenizers that transformers 5 rebuilds from `tokenizer_class`: it takes the vocabulary from tokenizer.json, but the
//! normalizer and the pre-tokenizer from the class.
//!
//! This program uses tokenizer.json as it is, as the tokenizers library does. [`warn_if_rebuilt`] reports a difference.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::files::TokenizerFiles;
use crate::error::Error;

/// The normalizers and pre-tokenizers that a class of transformers 5 builds, by type.
struct Rebuilt {
    class: &'static str,
    normalizers: &'static [&'static str],
    pre_tokenizers: &'static [&'static str],
}

/// The classes that rebuild the tokenizers of this program's architectures.
const REBUILT: [Rebuilt; 5] = [
    Rebuilt { class: "CodeLlamaTokenizer", normalizers: &[], pre_tokenizers: &["Metaspace"] },
    Rebuilt { class: "GPT2Tokenizer", normalizers: &[], pre_tokenizers: &["ByteLevel"] },
    Rebuilt { class: "GemmaTokenizer", normalizers: &["Replace"], pre_tokenizers: &["Split"] },
    Rebuilt { class: LLAMA, normalizers: &[], pre_tokenizers: &["Metaspace"] },
    Rebuilt { class: "Qwen2Tokenizer", normalizers: &["NFC"], pre_tokenizers: &["Split", "ByteLevel"] },
];

/// A class that transformers ignores if tokenizer.json is byte-level, because many such files name it by mistake.
const LLAMA: &str = "LlamaTokenizer";

/// The classes that obey `add_prefix_space`, although tokenizer.json may not add a space.
const OBEY_PREFIX_SPACE: [&str; 2] = ["GPT2Tokenizer", "Qwen2Tokenizer"];

/// Warns about a tokenizer that transformers 5 rebuilds with another normalizer or pre-tokenizer.
pub(super) fn warn_if_rebuilt(class: Option<&str>, tokenizer: &Tokenizer) {
    let parts = replaced_parts(class.unwrap_or_default(), tokenizer);
    if !parts.is_empty() {
        tracing::warn!(
            class,
            parts = parts.join(", "),
            "using tokenizer.json as it is; transformers 5 replaces these parts according to tokenizer_class, so it may \
             tokenize some texts differently"
        );
    }
}

/// Lists the parts of tokenizer.json that transformers 5 replaces with different ones.
fn replaced_parts(class: &str, tokenizer: &Tokenizer) -> Vec<&'static str> {
    let class = class.trim_end_matches("Fast");
    let Some(rebuilt) = REBUILT.iter().find(|rebuilt| rebuilt.class == class) else { return Vec::new() };
    let normalizers = types(serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default());
    let pre_tokenizers = types(serde_json::to_value(tokenizer.get_pre_tokenizer()).unwrap_or_default());
    if class == LLAMA && pre_tokenizers.iter().any(|name| name == "ByteLevel") {
        return Vec::new();
    }
    let parts = [
        ("normalizer", normalizers != rebuilt.normalizers),
        ("pre-tokenizer", pre_tokenizers != rebuilt.pre_tokenizers),
    ];
    parts.into_iter().filter(|part| part.1).map(|part| part.0).collect()
}

/// Lists the types of a normalizer or pre-tokenizer, or of the members of a sequence of them.
fn types(part: Value) -> Vec<String> {
    let members = ["normalizers", "pretokenizers"].iter().find_map(|name| part.get(name)?.as_array());
    match members {
        Some(members) => members.iter().cloned().flat_map(types).collect(),
        None => part.get("type").and_then(Value::as_str).map(str::to_owned).into_iter().collect(),
    }
}

/// Rejects `add_prefix_space` if the class obeys it in transformers, and tokenizer.json adds no space.
pub(super) fn check_prefix_space(
    dir: &Path,
    files: &TokenizerFiles,
    class: Option<&str>,
    tokenizer: &Tokenizer,
) -> Result<(), Error> {
    let is_set = files.config.get("add_prefix_space").and_then(Value::as_bool) == Some(true);
    let obeys = class.is_some_and(|class| OBEY_PREFIX_SPACE.contains(&class.trim_end_matches("Fast")));
    let tokens = |text: &str| tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).ok();
    if is_set && obeys && tokens("a") != tokens(" a") {
        let reason = "add_prefix_space is true, but tokenizer.json adds no space; load the tokenizer with transformers and \
                      save it again, or remove the setting";
        return Err(Error::malformed(&dir.join("tokenizer_config.json"), reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parts(class: &str, normalizer: Value, pre_tokenizer: Value) -> Vec<&'static str> {
        let model = json!({"type": "BPE", "vocab": {"a": 0}, "merges": []});
        let json = json!({"version": "1.0", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model});
        replaced_parts(class, &Tokenizer::from_bytes(json.to_string()).unwrap())
    }

    /// The files are written after published ones.
    #[test]
    fn parts_that_transformers_replaces_are_named() {
        let nothing = Vec::<&str>::new();
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let split = json!({"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated", "invert": false});
        let split_bytes = json!({"type": "Sequence", "pretokenizers": [split, byte_level]});
        let digits = json!({"type": "Digits", "individual_digits": true});
        let split_digits = json!({"type": "Sequence", "pretokenizers": [digits, byte_level]});
        let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        let prepend_replace = json!({"type": "Sequence", "normalizers": [prepend, replace]});
        let nfc = json!({"type": "NFC"});

        assert_eq!(parts("Qwen2TokenizerFast", nfc.clone(), split_bytes.clone()), nothing);
        assert_eq!(parts("Qwen2Tokenizer", Value::Null, split_bytes.clone()), ["normalizer"]);
        assert_eq!(parts("GPT2Tokenizer", Value::Null, byte_level.clone()), nothing);
        assert_eq!(parts("GPT2Tokenizer", Value::Null, split_digits.clone()), ["pre-tokenizer"]);
        assert_eq!(parts("LlamaTokenizerFast", prepend_replace.clone(), Value::Null), ["normalizer", "pre-tokenizer"]);
        assert_eq!(parts("LlamaTokenizer", Value::Null, split_bytes), nothing);
        assert_eq!(parts("PreTrainedTokenizerFast", nfc, split_digits), nothing);
        assert_eq!(parts("", prepend_replace, byte_level), nothing);
    }
}
