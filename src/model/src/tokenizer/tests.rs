use serde_json::{Value, json};

use super::*;
use crate::config::LlamaConfig;

/// Opens a tokenizer of the words `<s>`, `a`, `b` and `</s>` with a post-processor and a tokenizer_config.json.
fn open(post_processor: &Value, settings: &Value) -> Result<TextTokenizer, Error> {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": post_processor, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1, "b": 2, "</s>": 3}, "unk_token": "?"},
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    let config = r#"{"model_type":"llama","vocab_size":4,"hidden_size":8,"intermediate_size":8,
        "num_hidden_layers":1,"num_attention_heads":2,"bos_token_id":0,"eos_token_id":3}"#;
    TextTokenizer::open(dir.path(), &LlamaConfig::parse(config).unwrap())
}

/// Returns a post-processor that adds tokens before and after a text.
fn template(before: &[&str], after: &[&str]) -> Value {
    let ids = json!({"<s>": 0, "a": 1, "b": 2, "</s>": 3, "<x>": 9});
    let special = |token: &&str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let entry = |token: &&str| (token.to_string(), json!({"id": token, "ids": [ids[*token]], "tokens": [token]}));
    let text = std::iter::once(json!({"Sequence": {"id": "A", "type_id": 0}}));
    json!({
        "type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "single": before.iter().map(special).chain(text).chain(after.iter().map(special)).collect::<Vec<_>>(),
        "special_tokens": before.iter().chain(after).map(entry).collect::<serde_json::Map<_, _>>(),
    })
}

/// As in transformers, the post-processor decides which tokens are added, whatever the files name.
#[test]
fn special_tokens_are_added_as_the_tokenizer_adds_them() {
    let names = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}});
    let adds = json!({"bos_token": "<s>", "add_bos_token": true, "tokenizer_class": "LlamaTokenizerFast"});
    for (post_processor, settings, prefix, suffix, bos, eos) in [
        (Value::Null, json!({}), vec![], vec![], None, None),
        (Value::Null, names.clone(), vec![], vec![], Some(0), Some(3)),
        (Value::Null, adds, vec![], vec![], Some(0), None),
        (template(&["<s>"], &[]), json!({}), vec![0], vec![], Some(0), None),
        (template(&["<s>"], &[]), json!({"add_bos_token": false}), vec![0], vec![], Some(0), None),
        (template(&[], &["</s>"]), json!({"bos_token": "</s>"}), vec![], vec![3], Some(3), Some(3)),
        (template(&["<s>"], &["</s>"]), names, vec![0], vec![3], Some(0), Some(3)),
        (template(&["</s>", "<s>"], &[]), json!({}), vec![3, 0], vec![], Some(3), None),
    ] {
        let tokenizer = open(&post_processor, &settings).unwrap();
        assert_eq!((tokenizer.prefix(), tokenizer.suffix()), (&prefix[..], &suffix[..]), "{post_processor} {settings}");
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (bos, eos), "{post_processor} {settings}");
    }
    let error = open(&template(&["<x>"], &[]), &json!({})).unwrap_err().to_string();
    assert!(error.contains("adds token 9 to every text, but the model has only 4 token ids"), "{error}");
}

#[test]
fn special_tokens_of_any_file_are_read_from_texts() {
    let settings =
        json!({"eos_token": "</s>", "additional_special_tokens": [{"content": "<s>"}, "<not in the vocabulary>"]});
    let tokenizer = open(&Value::Null, &settings).unwrap();
    assert_eq!(tokenizer.encode("a</s>b<s>").unwrap(), [1, 3, 2, 0]);
    assert!(tokenizer.piece(3).is_special && !tokenizer.piece(1).is_special);
    let split = open(&Value::Null, &json!({"eos_token": "</s>", "split_special_tokens": true})).unwrap();
    assert!(split.encode("a</s>").unwrap_err().to_string().contains("a</s>"));
}

/// A tokenizer with one token for all unknown words joins a sentinel to the text after it.
#[test]
fn unknown_words_do_not_hide_a_continuation() {
    let dir = tempfile::tempdir().unwrap();
    let model = json!({"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"});
    let json = json!({"version": "1.0", "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": model});
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = TextTokenizer::open(dir.path(), Vocabulary { size: 2, bos: None, eos: None }).unwrap();
    assert!(tokenizer.encodes_continuations_alike());
    assert_eq!(tokenizer.encode_continuation(None, "b a").unwrap(), (vec![1, 0], vec![[0, 1], [2, 3]]));
}

#[test]
fn a_space_that_only_the_class_adds_is_rejected() {
    let settings = |class: &str| json!({"tokenizer_class": class, "add_prefix_space": true});
    assert!(open(&Value::Null, &settings("PreTrainedTokenizerFast")).is_ok());
    // A word-level tokenizer ignores spaces.
    assert!(open(&Value::Null, &settings("GPT2Tokenizer")).is_ok());
    let dir = tempfile::tempdir().unwrap();
    let model = json!({"type": "BPE", "vocab": {"a": 0, "\u{120}": 1}, "merges": []});
    let split = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = json!({"version": "1.0", "pre_tokenizer": split, "model": model});
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), settings("GPT2Tokenizer").to_string()).unwrap();
    let error = TextTokenizer::open(dir.path(), Vocabulary { size: 2, bos: None, eos: None }).unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json: add_prefix_space is true"), "{error}");
}

/// A token without an id gets the next one, in the order of transformers.
#[test]
fn named_tokens_without_ids_get_the_next_ones() {
    let settings = json!({
        "additional_special_tokens": ["<A>"], "image_token": "<I>", "eos_token": "<E>", "bos_token": "<B>",
    });
    let tokenizer = open(&Value::Null, &settings).unwrap();
    assert_eq!(tokenizer.encode("<B><E><I><A>").unwrap(), [4, 5, 6, 7]);
}

#[test]
fn the_chat_template_is_read_from_either_file() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
    write(
        "tokenizer.json",
        &json!({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}).to_string(),
    );
    let template = || {
        let vocabulary = Vocabulary { size: 1, bos: None, eos: None };
        TextTokenizer::open(dir.path(), vocabulary).unwrap().chat_template().map(str::to_owned)
    };
    assert_eq!(template(), None);
    let named = json!([{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]);
    for (value, expected) in [(json!("S"), "S"), (named, "D")] {
        write("tokenizer_config.json", &json!({"chat_template": value}).to_string());
        assert_eq!(template().as_deref(), Some(expected));
    }
    write("chat_template.jinja", "J");
    assert_eq!(template().as_deref(), Some("J"));
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
    let tokenizer = open(&template(&["<s>"], &[]), &json!({})).unwrap();
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

#[test]
fn a_tokenizer_that_makes_the_library_panic_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokenizer = json!({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}});
    // A table of replacements with an empty trie, in base64.
    tokenizer["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="});
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let error = TextTokenizer::open(dir.path(), Vocabulary { size: 1, bos: None, eos: None }).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: precompiled_charsmap has a trie of 0 units"), "{error}");
    let panics: [fn() -> Result<(), Error>; 2] = [|| panic!("index out of bounds"), || std::panic::panic_any(5)];
    for panic in panics {
        let error = catch_panic(dir.path(), panic).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: the tokenizers library panicked"), "{error}");
    }
}
