use serde_json::{Value, json};

use super::*;
use crate::config::LlamaConfig;

fn open(post_processor: &Value, settings: &Value) -> TextTokenizer {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": post_processor, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1, "b": 2}, "unk_token": "?"},
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    let config = r#"{"model_type":"llama","vocab_size":3,"hidden_size":8,"intermediate_size":8,
        "num_hidden_layers":1,"num_attention_heads":2,"bos_token_id":0}"#;
    TextTokenizer::open(dir.path(), &LlamaConfig::parse(config).unwrap()).unwrap()
}

fn template() -> Value {
    json!({
        "type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    })
}

#[test]
fn bos_is_added_as_the_model_specifies() {
    for (post_processor, settings, bos) in [
        (Value::Null, json!({}), None),
        (Value::Null, json!({"tokenizer_class": "LlamaTokenizerFast"}), Some(0)),
        (Value::Null, json!({"add_bos_token": true, "bos_token": {"content": "a"}}), Some(1)),
        (template(), json!({}), Some(0)),
        (template(), json!({"add_bos_token": false}), None),
    ] {
        assert_eq!(open(&post_processor, &settings).added_bos(), bos, "{settings}");
    }
}

#[test]
fn adds_space_only_if_a_text_with_a_leading_space_gets_another() {
    let dir = tempfile::tempdir().unwrap();
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let llama_2 = json!({"type": "Sequence", "normalizers": [prepend, replace]});
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false});
    for (normalizer, pre_tokenizer, adds) in
        [(llama_2, Value::Null, true), (replace, Value::Null, false), (Value::Null, metaspace, false)]
    {
        let model = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
        let tokenizer = json!({"version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model});
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let vocabulary = Vocabulary { size: 1, bos: None, eos: None };
        assert_eq!(TextTokenizer::open(dir.path(), vocabulary).unwrap().adds_space(), adds, "{tokenizer}");
    }
}

#[test]
fn ids_of_special_tokens_are_read_from_any_config() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Vocabulary::read(dir.path(), 9).unwrap(), Vocabulary { size: 9, bos: None, eos: None });
    let config = json!({"model_type": "phi3", "bos_token_id": 1, "eos_token_id": [2, 7]});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    assert_eq!(Vocabulary::read(dir.path(), 9).unwrap(), Vocabulary { size: 9, bos: Some(1), eos: Some(2) });
    std::fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(Vocabulary::read(dir.path(), 9).unwrap_err().to_string().contains("config.json"));
}

#[test]
fn end_tokens_are_collected_from_all_config_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, json: &Value| std::fs::write(dir.path().join(file), json.to_string()).unwrap();
    let vocab = json!({"a": 0, "b": 1, "c": 2, "d": 3, "</s>": 4});
    write(
        "tokenizer.json",
        &json!({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}}),
    );
    let ends = || {
        TextTokenizer::open(dir.path(), Vocabulary { size: 5, bos: None, eos: None }).unwrap().end_token_ids().to_vec()
    };
    assert_eq!(ends(), [0u32; 0]);
    write("tokenizer_config.json", &json!({"eos_token": "</s>"}));
    assert_eq!(ends(), [4]);
    write("config.json", &json!({"eos_token_id": 1}));
    write("generation_config.json", &json!({"eos_token_id": [3, 1, 99]}));
    assert_eq!(ends(), [1, 3, 4]);
}

#[test]
fn texts_are_never_truncated_and_unknown_words_are_named() {
    let tokenizer = open(&template(), &json!({}));
    assert_eq!(tokenizer.encode("a b a b a").unwrap(), [1, 2, 1, 2, 1]);
    assert_eq!(tokenizer.encode_with_offsets(" a  b").unwrap(), (vec![1, 2], vec![[1, 2], [4, 5]]));
    assert_eq!(tokenizer.decode(&[1, 2]).unwrap(), "a b");
    assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
    let error = tokenizer.encode("a b zebra").unwrap_err().to_string();
    assert!(error.contains("the word \"zebra\" is not in this model's vocabulary"), "{error}");
}

#[test]
fn a_missing_tokenizer_error_says_how_to_convert_one() {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = Vocabulary { size: 1, bos: None, eos: None };
    let error = TextTokenizer::open(dir.path(), vocabulary).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: no such file"), "{error}");
    assert!(error.contains("to convert a tokenizer.model"), "{error}");
}
