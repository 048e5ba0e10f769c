//! Parser of config.json, which rejects unsupported settings.

use serde_json::Value;

use super::config_fields::CONFIG;
use super::json_fields::{JsonFields, invalid, json_type};
use super::quantization::Quantization;
use super::{Architecture, LlamaConfig};
use crate::error::Error;

/// The fields that have a default if they are absent, but that transformers does not accept as null.
const NOT_NULL: [&str; 3] = ["hidden_act", "max_position_embeddings", "rms_norm_eps"];

impl LlamaConfig {
    /// Parses config.json. Absent fields get the defaults of the transformers library.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Config`], which names the field, if a field is malformed or its value is not supported.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| invalid("the JSON parse error", error.to_string(), "the file must be valid JSON"))?;
        let object = value.as_object().ok_or_else(|| invalid("the file", json_type(&value), "it must be an object"))?;
        let fields = JsonFields(object);
        let architecture = fields.architecture()?;
        if let Some(rejected) = CONFIG.rejected(object) {
            return Err(invalid(rejected.name, rejected.value, &rejected.expected));
        }
        for field in NOT_NULL {
            fields.reject_null(field)?;
        }

        let hidden_size = fields.size("hidden_size", None)?;
        let heads = fields.count("num_attention_heads", None)?;
        let defaults = Defaults::of(architecture, hidden_size, heads);
        let kv_heads = fields.kv_heads(heads, defaults.kv_heads)?;
        let head_dim = fields.head_dim(defaults.head_dim)?;
        let max_positions = fields.size("max_position_embeddings", Some(defaults.max_positions))?;
        let layers = fields.count("num_hidden_layers", None)?;
        let rope = fields.rope(max_positions)?;
        let attention_bias = fields.attention_bias(architecture)?;
        Ok(Self {
            architecture,
            vocab_size: fields.size("vocab_size", None)?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size", None)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: fields.positive_or("rms_norm_eps", 1e-6)?,
            max_positions,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            sliding_window: fields.sliding_window(architecture, layers, max_positions)?,
            qkv_bias: attention_bias || architecture == Architecture::Qwen2,
            output_bias: attention_bias && architecture != Architecture::Qwen2,
            mlp_bias: fields.bias_flag("mlp_bias", architecture, &[Architecture::Llama])?,
            qk_norm: architecture == Architecture::Qwen3,
            quantization: fields.get("quantization_config").map(Quantization::parse).transpose()?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
            bos_token_id: fields.token_id("bos_token_id")?,
            eos_token_id: fields.token_id("eos_token_id")?,
        })
    }
}

/// Defaults that depend on the architecture.
struct Defaults {
    kv_heads: usize,
    head_dim: usize,
    max_positions: usize,
}

impl Defaults {
    fn of(architecture: Architecture, hidden_size: usize, heads: usize) -> Self {
        let (kv_heads, head_dim, max_positions) = match architecture {
            Architecture::Llama => (heads, hidden_size / heads, 2048),
            Architecture::Mistral => (8, hidden_size / heads, 4096 * 32),
            Architecture::Qwen2 => (32, hidden_size / heads, 32768),
            Architecture::Qwen3 => (32, 128, 32768),
        };
        Self { kv_heads, head_dim, max_positions }
    }
}

impl JsonFields<'_> {
    /// Finds the architecture by the first class in `architectures`, or by `model_type` if there is none.
    fn architecture(&self) -> Result<Architecture, Error> {
        let class = self.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        let model_type = self.get("model_type").and_then(Value::as_str);
        let is_named = |architecture: &Architecture| match class {
            Some(class) => class == architecture.class_name(),
            None => model_type == Some(architecture.model_type()),
        };
        let architecture = Architecture::ALL.into_iter().find(is_named).ok_or_else(|| {
            let (field, found) = match class {
                Some(class) => ("architectures", class),
                None => ("model_type", model_type.unwrap_or("missing")),
            };
            let names = Architecture::ALL.map(Architecture::class_name).join(", ");
            invalid(field, found, &format!("the supported architectures are {names}"))
        })?;
        // transformers chooses the class by the model type.
        match model_type {
            Some(other) if other != architecture.model_type() => {
                let expected = format!("{} requires {}", architecture.class_name(), architecture.model_type());
                Err(invalid("model_type", other, &expected))
            }
            _ => Ok(architecture),
        }
    }

    /// Reads a flag for biases, which only some architectures may set.
    fn bias_flag(&self, field: &str, architecture: Architecture, allowed: &[Architecture]) -> Result<bool, Error> {
        match self.flag(field)? {
            true if !allowed.contains(&architecture) => {
                let expected = format!("{} has no such biases; set it to false", architecture.class_name());
                Err(invalid(field, true, &expected))
            }
            flag => Ok(flag),
        }
    }

    /// Reads `attention_bias`. Qwen2 has biases on queries, keys and values, whatever the field says.
    fn attention_bias(&self, architecture: Architecture) -> Result<bool, Error> {
        let allowed = [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3];
        self.bias_flag("attention_bias", architecture, &allowed)
    }

    /// Reads the number of key-value heads, which must divide the number of query heads. Null stands for the number of
    /// query heads.
    fn kv_heads(&self, heads: usize, default: usize) -> Result<usize, Error> {
        let is_null = self.0.get("num_key_value_heads").is_some_and(Value::is_null);
        let kv_heads = self.count("num_key_value_heads", Some(if is_null { heads } else { default }))?;
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("it must divide num_attention_heads ({heads})");
            return Err(invalid("num_key_value_heads", kv_heads, &expected));
        }
        Ok(kv_heads)
    }

    /// Reads the size of a head, which must be even and at most 1024.
    fn head_dim(&self, default: usize) -> Result<usize, Error> {
        let head_dim = self.size("head_dim", Some(default))?;
        if head_dim == 0 || head_dim % 2 != 0 || head_dim > 1024 {
            return Err(invalid("head_dim", head_dim, "it must be an even number from 2 to 1024"));
        }
        Ok(head_dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_configs::{parse_with, small_config};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn absent_fields_get_defaults() {
        let config = LlamaConfig::parse(&small_config().to_string()).unwrap();
        assert_eq!((config.kv_heads, config.head_dim, config.max_positions), (4, 16, 2048));
        assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-6, 10000.0));
        assert_eq!((config.bos_token_id, config.eos_token_id), (Some(1), Some(2)));
        assert!(!config.tie_word_embeddings);
    }

    #[test]
    fn errors_name_unsupported_fields() {
        for (field, value) in [
            ("architectures", json!(["GPT2LMHeadModel"])),
            ("hidden_act", json!("gelu")),
            ("quantization_config", json!({"quant_method": "gptq"})),
            ("rope_scaling", json!({"rope_type": "longrope", "factor": 8.0})),
            ("rope_parameters", json!({"rope_type": 5})),
            ("rope_parameters", json!("linear")),
            ("attention_bias", json!("yes")),
            ("partial_rotary_factor", json!(0.5)),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(15)),
            ("hidden_size", json!(-1)),
            ("hidden_size", json!(1u64 << 40)),
            ("num_hidden_layers", json!(1 << 20)),
            ("vocab_size", json!("many")),
            ("rms_norm_eps", json!(0)),
            ("bos_token_id", json!(-5)),
            ("tie_word_embeddings", json!(1)),
            ("rope_theta", json!(null)),
            ("rms_norm_eps", json!(null)),
            ("hidden_act", json!(null)),
            ("max_position_embeddings", json!(null)),
            ("rope_scaling", json!({"rope_type": "linear", "factor": 2.0, "rope_theta": null})),
        ] {
            let error = parse_with(field, value).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
        let mut config = small_config();
        config.as_object_mut().unwrap().remove("num_hidden_layers");
        let error = LlamaConfig::parse(&config.to_string()).unwrap_err().to_string();
        assert_eq!(error, "config.json: num_hidden_layers is missing; it must be a whole number from 1 to 4096");
    }

    #[test]
    fn defaults_depend_on_the_architecture() {
        let family = |name: &str| {
            let mut config = small_config();
            config["architectures"] = json!([name]);
            config["num_key_value_heads"] = json!(2);
            config["attention_bias"] = json!(name != "MistralForCausalLM");
            LlamaConfig::parse(&config.to_string()).unwrap()
        };
        let [llama, mistral, qwen2, qwen3] = Architecture::ALL.map(|architecture| family(architecture.class_name()));
        assert_eq!((llama.sliding_window, mistral.sliding_window, qwen2.sliding_window), (None, Some(4096), None));
        assert_eq!((llama.head_dim, qwen2.head_dim, qwen3.head_dim), (16, 16, 128));
        assert_eq!((llama.output_bias, qwen2.qkv_bias, qwen2.output_bias), (true, true, false));
        assert_eq!((llama.qk_norm, qwen3.qk_norm), (false, true));
    }

    #[test]
    fn null_key_value_heads_stand_for_the_number_of_heads() {
        let mut config = small_config();
        config["architectures"] = json!(["Qwen2ForCausalLM"]);
        config["num_key_value_heads"] = Value::Null;
        assert_eq!(LlamaConfig::parse(&config.to_string()).unwrap().kv_heads, 4);
    }

    #[test]
    fn unknown_fields_and_fields_of_other_architectures_are_rejected() {
        for (field, value) in
            [("attention_sinks", json!(4)), ("is_causal", json!(false)), ("model_type", json!("qwen2"))]
        {
            let error = parse_with(field, value.clone()).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("config.json: {field} is {}", value.to_string().trim_matches('"'))),
                "{error}"
            );
        }
        for class in ["MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"] {
            let mut config = small_config();
            config["architectures"] = json!([class]);
            config["num_key_value_heads"] = json!(2);
            config["mlp_bias"] = json!(true);
            let error = LlamaConfig::parse(&config.to_string()).unwrap_err().to_string();
            assert!(error.contains("mlp_bias is true") && error.contains(class), "{error}");
        }
        for (field, value) in [("attention_sinks", json!(null)), ("new_feature", json!(false)), ("notes", json!({}))] {
            assert!(parse_with(field, value).is_ok(), "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".{0,200}", field in "[a-z_]{1,24}", number in any::<f64>()) {
            let _ = LlamaConfig::parse(&text);
            let _ = parse_with(&field, json!(number));
            for known in ["hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "rope_parameters"] {
                let _ = parse_with(known, json!(number as i64));
                let _ = parse_with(known, json!({field.clone(): number}));
            }
        }
    }
}
