//! A walk over configurations written after published ones: each is read as transformers reads it, or rejected by the
//! name of a field.
//!
//! `configurations.py` writes the expected values into `configurations.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use surprisal_model::LlamaConfig;

/// A configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    /// The entry whose fields this one inherits.
    like: Option<String>,
    /// The inherited fields that this entry lacks.
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    fields: Map<String, Value>,
    /// The field that is rejected.
    rejected: Option<String>,
    /// The values that transformers reads; absent if the configuration is rejected.
    expected: Option<Expected>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    theta: f64,
    head_dim: usize,
    kv_heads: usize,
    max_positions: usize,
    window: Option<usize>,
    tied: bool,
    eos: Option<u32>,
    attention_factor: f64,
    /// Some rotary frequencies, by index.
    frequencies: BTreeMap<usize, f32>,
}

fn entries() -> Vec<Entry> {
    serde_json::from_str(include_str!("configurations.json")).expect("the file has the form of Entry")
}

/// Returns the fields of config.json.
fn fields_of(entry: &Entry, entries: &[Entry]) -> Map<String, Value> {
    let mut fields = match &entry.like {
        Some(name) => fields_of(entries.iter().find(|other| other.name == *name).expect("the entry exists"), entries),
        None => Map::new(),
    };
    fields.retain(|name, _| !entry.without.contains(name));
    fields.extend(entry.fields.clone());
    fields
}

fn parse(entry: &Entry, entries: &[Entry]) -> Result<LlamaConfig, String> {
    LlamaConfig::parse(&Value::Object(fields_of(entry, entries)).to_string()).map_err(|error| error.to_string())
}

#[test]
fn configurations_are_read_as_transformers_reads_them() {
    let entries = entries();
    let mut count = 0;
    for entry in &entries {
        let Some(expected) = &entry.expected else { continue };
        let name = &entry.name;
        let config = parse(entry, &entries).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.rope_theta, expected.theta, "{name}");
        assert_eq!(config.head_dim, expected.head_dim, "{name}");
        assert_eq!(config.kv_heads, expected.kv_heads, "{name}");
        assert_eq!(config.max_positions, expected.max_positions, "{name}");
        assert_eq!(config.sliding_window, expected.window, "{name}");
        assert_eq!(config.tie_word_embeddings, expected.tied, "{name}");
        assert_eq!(config.eos_token_id, expected.eos, "{name}");
        let factor = config.rope_scaling.attention_factor();
        assert!((factor - expected.attention_factor).abs() < 1e-12, "{name}: {factor}");
        let frequencies = config.rope_scaling.frequencies(config.rope_theta, config.head_dim);
        for (&index, &want) in &expected.frequencies {
            let got = frequencies[index];
            assert!((got - want).abs() <= 1e-6 * want, "{name}: frequency {index} is {got}, not {want}");
        }
        count += 1;
    }
    assert!(count >= 60, "{count} configurations");
}

#[test]
fn other_configurations_are_rejected_by_the_name_of_a_field() {
    let entries = entries();
    for entry in &entries {
        assert_ne!(entry.rejected.is_some(), entry.expected.is_some(), "{}", entry.name);
        let Some(field) = &entry.rejected else { continue };
        match parse(entry, &entries) {
            Ok(_) => panic!("{} is accepted", entry.name),
            Err(error) => {
                let start = format!("config.json: {field} is ");
                assert!(error.starts_with(&start), "{}: expected an error about {field}, got: {error}", entry.name);
            }
        }
    }
}
