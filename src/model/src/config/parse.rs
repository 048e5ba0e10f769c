//! Parser of config.json, which rejects unsupported settings.

use serde_json::Value;

use super::json_fields::{JsonFields, invalid, json_type};
use super::quantization::Quantization;
use super::{Architecture, LlamaConfig};
use crate::error::Error;

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
        fields.check_supported()?;

        let hidden_size = fields.size("hidden_size", None)?;
        let heads = fields.count("num_attention_heads", None)?;
        let defaults = Defaults::of(architecture, hidden_size, heads);
        let kv_heads = fields.kv_heads(heads, defaults.kv_heads)?;
        let head_dim = fields.head_dim(defaults.head_dim)?;
        let max_positions = fields.size("max_position_embeddings", Some(defaults.max_positions))?;
        let attention_bias = fields.flag("attention_bias")?;
        Ok(Self {
            architecture,
            vocab_size: fields.size("vocab_size", None)?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size", None)?,
            layers: fields.count("num_hidden_layers", None)?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: fields.positive_or("rms_norm_eps", 1e-6)?,
            max_positions,
            rope_theta: fields.rope_theta()?,
            rope_scaling: fields.rope_scaling(max_positions)?,
            sliding_window: fields.sliding_window(architecture)?,
            qkv_bias: attention_bias || architecture == Architecture::Qwen2,
            output_bias: attention_bias && architecture != Architecture::Qwen2,
            mlp_bias: fields.flag("mlp_bias")? && architecture == Architecture::Llama,
            qk_norm: architecture == Architecture::Qwen3,
            quantization: fields.quantization()?,
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
        Architecture::ALL.into_iter().find(is_named).ok_or_else(|| {
            let (field, found) = match class {
                Some(class) => ("architectures", class),
                None => ("model_type", model_type.unwrap_or("missing")),
            };
            let names = Architecture::ALL.map(Architecture::class_name).join(", ");
            invalid(field, found, &format!("the supported architectures are {names}"))
        })
    }

    /// Rejects settings that change the results and that no backend supports.
    fn check_supported(&self) -> Result<(), Error> {
        if let Some(value) = self.get("hidden_act").filter(|value| value.as_str() != Some("silu")) {
            return Err(invalid("hidden_act", value, "only silu is supported"));
        }
        if let Some(value) = self.get("partial_rotary_factor").filter(|value| value.as_f64() != Some(1.0)) {
            return Err(invalid("partial_rotary_factor", value, "only 1 is supported"));
        }
        Ok(())
    }

    /// Reads the number of key-value heads, which must divide the number of query heads.
    fn kv_heads(&self, heads: usize, default: usize) -> Result<usize, Error> {
        let kv_heads = self.count("num_key_value_heads", Some(default))?;
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

    /// Reads the sliding window. Mistral's default is 4096. Qwen is supported only without a window, its default.
    fn sliding_window(&self, architecture: Architecture) -> Result<Option<usize>, Error> {
        match architecture {
            Architecture::Llama => Ok(None),
            Architecture::Mistral => match self.0.get("sliding_window") {
                Some(Value::Null) => Ok(None),
                _ => self.size("sliding_window", Some(4096)).map(Some),
            },
            Architecture::Qwen2 | Architecture::Qwen3 => match self.flag("use_sliding_window")? {
                false => Ok(None),
                true => Err(invalid("use_sliding_window", true, "Qwen is supported only without a sliding window")),
            },
        }
    }

    fn quantization(&self) -> Result<Option<Quantization>, Error> {
        let Some(value) = self.get("quantization_config") else { return Ok(None) };
        let expected =
            "only fbgemm_fp8, float-quantized compressed-tensors, and fp8 with weight_block_size are supported";
        let quantization = value.as_object().and_then(Quantization::parse);
        quantization.map(Some).ok_or_else(|| invalid("quantization_config", value, expected))
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
            config["attention_bias"] = json!(true);
            LlamaConfig::parse(&config.to_string()).unwrap()
        };
        let [llama, mistral, qwen2, qwen3] = Architecture::ALL.map(|architecture| family(architecture.class_name()));
        assert_eq!((llama.sliding_window, mistral.sliding_window, qwen2.sliding_window), (None, Some(4096), None));
        assert_eq!((llama.head_dim, qwen2.head_dim, qwen3.head_dim), (16, 16, 128));
        assert_eq!((llama.output_bias, qwen2.qkv_bias, qwen2.output_bias), (true, true, false));
        assert_eq!((llama.qk_norm, qwen3.qk_norm), (false, true));
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
