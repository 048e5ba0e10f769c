//! The fields of tokenizer_config.json, by the rule of `known_fields.rs`.
//!
//! tokenizer.json describes the whole tokenization. transformers 5 takes special tokens, added tokens and the class
//! from tokenizer_config.json as well; it applied the other fields when it saved tokenizer.json.

use serde_json::{Map, Value};

use super::known_fields::{KnownFields, Neutral, Reason};
use crate::error::Error;

/// The fields of tokenizer_config.json.
const TOKENIZER: KnownFields = KnownFields {
    read: &[
        // transformers 5 ignores these two if there is a tokenizer.json, whose post-processor decides.
        "add_bos_token",
        "add_eos_token",
        // Like every text in a field `*_token`, these name special tokens. transformers adds tokens that tokenizer.json
        // lacks, and replaces the flags (`lstrip`, `normalized`, ...) of those that it has.
        "added_tokens_decoder",
        "additional_special_tokens",
        "extra_special_tokens",
        "chat_template",
        "split_special_tokens",
        // LlamaTokenizer and Qwen2Tokenizer replace the normalizer and the pre-tokenizer of tokenizer.json.
        "tokenizer_class",
        // GPT2Tokenizer, LlamaTokenizer and Qwen2Tokenizer read one or both of these.
        "add_prefix_space",
        "legacy",
    ],
    irrelevant: &[
        (Reason::Metadata, METADATA),
        (Reason::Text, TEXT),
        (Reason::Implementation, &["backend", "is_local", "local_files_only", "use_fast", "verbose"]),
    ],
    irrelevant_prefixes: &["unsloth_"],
    neutral: &[
        ("do_lower_case", &[Neutral::False]),
        // transformers 5 ignores it. Version 4 rebuilds tokenizer.json from tokenizer.model.
        ("from_slow", &[Neutral::False, Neutral::True]),
        // transformers replaces the pre-tokenizer.
        ("fix_mistral_regex", &[Neutral::False]),
        ("keep_accents", &[Neutral::True]),
        ("remove_space", &[Neutral::False]),
        // SentencePiece would sample the segmentation.
        ("sp_model_kwargs", &[Neutral::Empty]),
    ],
};

/// Descriptions of the tokenizer and of its files. transformers runs the code in `auto_map` only with
/// `trust_remote_code`.
const METADATA: &[&str] = &[
    "_commit_hash",
    "auto_map",
    "name_or_path",
    "processor_class",
    "special_tokens_map_file",
    "tokenizer_file",
    "tokenizer_type",
    "transformers_version",
    "vocab_file",
];

/// Sides and limits of padding and truncation, which this program never does; the choice of outputs; the form of
/// decoded texts; and the prompts of chats.
const TEXT: &[&str] = &[
    "chat_control_tokens",
    "clean_up_tokenization_spaces",
    "errors",
    "max_length",
    "max_len",
    "model_input_names",
    "model_max_length",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "padding",
    "padding_side",
    "response_schema",
    "response_template",
    "return_token_type_ids",
    "spaces_between_special_tokens",
    "stride",
    "trim_offsets",
    "truncation",
    "truncation_side",
    "truncation_strategy",
    "use_default_system_prompt",
];

/// Rejects fields of tokenizer_config.json that would change how a text is tokenized and are not supported.
///
/// # Errors
///
/// Returns [`Error::TokenizerConfig`], which names the field.
pub(crate) fn check_tokenizer_config(config: &Value) -> Result<(), Error> {
    let fields = config.as_object().into_iter().flatten().filter(|(name, value)| !is_special_token(name, value));
    let others: Map<String, Value> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    match TOKENIZER.rejected(&others) {
        Some(rejected) => Err(Error::TokenizerConfig {
            field: rejected.name.to_owned(),
            found: rejected.value.to_string(),
            expected: rejected.expected,
        }),
        None => Ok(()),
    }
}

/// Returns whether a field names a special token: a text, or an object with the text and flags.
fn is_special_token(name: &str, value: &Value) -> bool {
    name.ends_with("_token") && (value.is_string() || value.get("content").is_some_and(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Checks files in the form of published ones.
    #[test]
    fn published_forms_are_accepted() {
        let token = |content: &str| {
            json!({"__type": "AddedToken", "content": content, "lstrip": false, "normalized": true, "rstrip": false,
                "single_word": false, "special": true})
        };
        for config in [
            Value::Null,
            json!({}),
            json!({
                "add_bos_token": true, "add_eos_token": false, "bos_token": token("<s>"), "eos_token": token("</s>"),
                "unk_token": token("<unk>"), "pad_token": null, "legacy": false, "sp_model_kwargs": {},
                "clean_up_tokenization_spaces": false, "model_max_length": 1_000_000_000_000_000_019_884_624_838_656_u128 as f64,
                "tokenizer_class": "LlamaTokenizer", "padding_side": "right", "use_default_system_prompt": false,
                "added_tokens_decoder": {"0": {"content": "<unk>", "special": true}}, "add_prefix_space": null,
            }),
            json!({
                "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
                "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 131072,
                "clean_up_tokenization_spaces": true, "chat_template": "{{ messages }}",
            }),
            json!({
                "tokenizer_class": "Qwen2Tokenizer", "split_special_tokens": false, "errors": "replace",
                "additional_special_tokens": ["<|im_start|>"], "add_prefix_space": false, "bos_token": null,
                "extra_special_tokens": {}, "backend": "tokenizers", "is_local": true,
            }),
            json!({
                "tokenizer_class": "CodeLlamaTokenizer", "prefix_token": "p", "middle_token": "m", "suffix_token": "s",
                "eot_token": "e", "fill_token": "<FILL_ME>", "image_token": token("<image>"), "auto_map": {"AutoTokenizer": ["a.B", null]},
            }),
        ] {
            assert!(check_tokenizer_config(&config).is_ok(), "{config}");
        }
    }

    #[test]
    fn other_tokenizations_are_rejected_by_name() {
        for (field, value) in [
            ("fix_mistral_regex", json!(true)),
            ("sp_model_kwargs", json!({"enable_sampling": true})),
            ("do_lower_case", json!(true)),
            ("byte_dropout", json!(0.1)),
            ("image_token", json!(5)),
        ] {
            let error = check_tokenizer_config(&json!({ field: value })).unwrap_err().to_string();
            assert!(error.starts_with(&format!("tokenizer_config.json: {field} is {value}; ")), "{error}");
        }
    }
}
