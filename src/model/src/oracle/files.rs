//! The JSON files of an oracle's checkpoint.

use serde_json::{Map, Value, json};

use super::spec::OracleSpec;
use super::symbol_names::symbol_name;
use super::weights::{HEAD_DIM, Shape};

/// The epsilon that RMSNorm adds to the mean square.
const RMS_NORM_EPS: f64 = 1e-5;

/// Returns the names and contents of the JSON files. Fields are sorted, because the fingerprint depends on every byte,
/// and the order of a `Value` depends on the features of serde_json.
pub(super) fn json_files(spec: &OracleSpec, shape: &Shape) -> [(&'static str, String); 4] {
    let files = [
        ("config.json", config(spec, shape)),
        ("tokenizer.json", tokenizer(spec)),
        ("tokenizer_config.json", tokenizer_config(spec)),
        ("generation_config.json", generation_config(spec)),
    ];
    files.map(|(name, mut value)| {
        value.sort_all_objects();
        (name, value.to_string())
    })
}

/// Returns config.json.
fn config(spec: &OracleSpec, shape: &Shape) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": spec.vocab_size(), "hidden_size": shape.hidden, "intermediate_size": 2 * shape.tokens,
        "num_hidden_layers": 2, "num_attention_heads": shape.hidden / HEAD_DIM,
        "num_key_value_heads": shape.hidden / HEAD_DIM, "head_dim": HEAD_DIM,
        "hidden_act": "silu", "max_position_embeddings": spec.context_length, "rms_norm_eps": RMS_NORM_EPS,
        "rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false,
        "bos_token_id": shape.tokens, "eos_token_id": shape.tokens,
        "dtype": "float32", "torch_dtype": "float32",
    })
}

/// Returns tokenizer.json. Each token is a word: the symbol's name and its coin's side, as in `baba+` or `baba-`.
fn tokenizer(spec: &OracleSpec) -> Value {
    let (symbols, bos) = (spec.probabilities.len(), spec.vocab_size() - 1);
    let mut vocab: Map<String, Value> = (0..bos)
        .map(|token| (format!("\u{2581}{}{}", symbol_name(token / 2, symbols), ["-", "+"][token % 2]), json!(token)))
        .collect();
    vocab.insert("<s>".into(), json!(bos));
    let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        // Words may be on separate lines and indented, as in any text.
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true},
        ]},
        "added_tokens": [{
            "id": bos, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "pre_tokenizer": metaspace, "decoder": metaspace,
        "post_processor": {
            "type": "TemplateProcessing", "single": [begin, sequence],
            "pair": [begin, sequence, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}},
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    })
}

/// Returns tokenizer_config.json.
fn tokenizer_config(spec: &OracleSpec) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<s>", "add_bos_token": true,
        "model_max_length": spec.context_length,
    })
}

/// Returns generation_config.json.
fn generation_config(spec: &OracleSpec) -> Value {
    let bos = spec.vocab_size() - 1;
    json!({"bos_token_id": bos, "eos_token_id": bos})
}
