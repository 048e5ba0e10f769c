//! `LlamaConfig`: config.json, in its older and newer forms, and what of it is not supported.

use serde_json::Value;

use crate::fields::{Fields, kind, refuse};
use crate::{Error, Quantization, RopeScaling};

/// The families of decoders that share Llama's forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2, 3, 3.1, 3.2, 3.3.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.
    Qwen2,
    /// Qwen3: Llama with normed queries and keys.
    Qwen3,
}

impl Architecture {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Llama, "LlamaForCausalLM", "llama"),
        (Self::Mistral, "MistralForCausalLM", "mistral"),
        (Self::Qwen2, "Qwen2ForCausalLM", "qwen2"),
        (Self::Qwen3, "Qwen3ForCausalLM", "qwen3"),
    ];
}

/// What the forward pass needs to know of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// The family.
    pub architecture: Architecture,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Size of one head; even.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// The longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// How the angles are stretched for long contexts.
    pub rope_scaling: RopeScaling,
    /// How many tokens back a token sees, itself included; all when `None`.
    pub sliding_window: Option<usize>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has a bias.
    pub output_bias: bool,
    /// Whether the MLP's products have biases.
    pub mlp_bias: bool,
    /// Whether each head's queries and keys are normed before they are turned.
    pub qk_norm: bool,
    /// How FP8 weights are scaled, where there are some.
    pub quantization: Option<Quantization>,
    /// Whether the embedding serves as the head.
    pub tie_word_embeddings: bool,
    /// The beginning-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// The (first) end-of-sequence token.
    pub eos_token_id: Option<u32>,
}

impl LlamaConfig {
    /// Reads config.json; absent fields have the values transformers gives them.
    ///
    /// # Errors
    ///
    /// Names the field that is malformed, or that asks for something not supported.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let value: Value =
            serde_json::from_str(json).map_err(|error| refuse("(file)", error.to_string(), "it must be JSON"))?;
        let fields = Fields(value.as_object().ok_or_else(|| refuse("(file)", kind(&value), "it must be an object"))?);
        let architecture = fields.architecture()?;
        fields.check_supported()?;

        let hidden_size = fields.size("hidden_size", None)?;
        let heads = fields.count("num_attention_heads", None)?;
        let (usual_kv_heads, usual_head_dim, usual_positions) = match architecture {
            Architecture::Llama => (heads, hidden_size / heads, 2048),
            Architecture::Mistral => (8, hidden_size / heads, 4096 * 32),
            Architecture::Qwen2 => (32, hidden_size / heads, 32768),
            Architecture::Qwen3 => (32, 128, 32768),
        };
        let kv_heads = fields.count("num_key_value_heads", Some(usual_kv_heads))?;
        if heads % kv_heads != 0 {
            return Err(refuse(
                "num_key_value_heads",
                kv_heads,
                &format!("it must divide num_attention_heads ({heads})"),
            ));
        }
        let head_dim = fields.size("head_dim", Some(usual_head_dim))?;
        if head_dim == 0 || head_dim % 2 != 0 || head_dim > 1024 {
            return Err(refuse("head_dim", head_dim, "it must be even, from 2 to 1024"));
        }
        let max_positions = fields.size("max_position_embeddings", Some(usual_positions))?;
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
            rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
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
            bos_token_id: fields.token("bos_token_id")?,
            eos_token_id: fields.token("eos_token_id")?,
        })
    }
}

impl Fields<'_> {
    /// The newer `rope_parameters.rope_theta`, or the older `rope_theta`. Where they differ, neither can be known to hold.
    fn rope_theta(&self) -> Result<f64, Error> {
        let theta = |fields: Fields<'_>| fields.positive("rope_theta", 10000.0);
        let older = theta(Fields(self.0))?;
        let newer = match self.get("rope_parameters").and_then(Value::as_object) {
            Some(rope) if rope.contains_key("rope_theta") => theta(Fields(rope))?,
            _ => return Ok(older),
        };
        if self.get("rope_theta").is_some() && newer != older {
            let newer = format!("rope_parameters.rope_theta is {newer}, and the two must say the same");
            return Err(refuse("rope_theta", older, &newer));
        }
        Ok(newer)
    }

    /// The newer `rope_parameters`, or the older `rope_scaling`. Where they differ, neither can be known to hold.
    fn rope_scaling(&self, max_positions: usize) -> Result<RopeScaling, Error> {
        let newer = self.scaling("rope_parameters", max_positions)?;
        let older = self.scaling("rope_scaling", max_positions)?;
        match (newer, older) {
            (Some(newer), Some(older)) if newer != older => Err(refuse(
                "rope_scaling",
                format!("{older:?}"),
                &format!("rope_parameters is {newer:?}, and the two must say the same"),
            )),
            (newer, older) => Ok(newer.or(older).unwrap_or(RopeScaling::Default)),
        }
    }

    fn scaling(&self, field: &str, max_positions: usize) -> Result<Option<RopeScaling>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let rope = Fields(value.as_object().ok_or_else(|| refuse(field, value, "it must be an object"))?);
        let name = rope.get("rope_type").or_else(|| rope.get("type")).map_or(Some("default"), Value::as_str);
        let original = || {
            let outside = self.get("original_max_position_embeddings").and_then(Value::as_f64);
            rope.positive("original_max_position_embeddings", outside.unwrap_or(max_positions as f64))
        };
        Ok(Some(match name {
            // Dynamic NTK changes nothing up to the length the model was made for, and longer sequences are refused.
            Some("default" | "dynamic") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear { factor: rope.required("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: rope.required("factor")?,
                low: rope.required("low_freq_factor")?,
                high: rope.required("high_freq_factor")?,
                original: original()?,
            },
            Some("yarn") => {
                let original = original()?;
                let factor = rope.positive("factor", max_positions as f64 / original)?;
                RopeScaling::Yarn {
                    factor,
                    original,
                    beta_fast: rope.positive("beta_fast", 32.0)?,
                    beta_slow: rope.positive("beta_slow", 1.0)?,
                    attention_factor: rope.yarn_attention(factor)?,
                    truncate: rope.get("truncate").is_none() || rope.flag("truncate")?,
                }
            }
            _ => {
                return Err(refuse(field, value, "rope_type default, linear, dynamic, llama3 and yarn are supported"));
            }
        }))
    }

    /// YaRN's temperature, equation 22: `0.1 ln(factor) + 1`, unless the checkpoint says otherwise.
    fn yarn_attention(&self, factor: f64) -> Result<f64, Error> {
        let warmth = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let scales = [self.get("mscale"), self.get("mscale_all_dim")].map(|value| value.and_then(Value::as_f64));
        let usual = match scales {
            [Some(one), Some(all)] if one != 0.0 && all != 0.0 => warmth(one) / warmth(all),
            _ => warmth(1.0),
        };
        self.positive("attention_factor", usual)
    }

    /// Mistral's window is 4096 unless it says otherwise; Qwen's is off, and supported only so.
    fn sliding_window(&self, architecture: Architecture) -> Result<Option<usize>, Error> {
        match architecture {
            Architecture::Llama => Ok(None),
            Architecture::Mistral => match self.0.get("sliding_window") {
                Some(Value::Null) => Ok(None),
                _ => self.size("sliding_window", Some(4096)).map(Some),
            },
            Architecture::Qwen2 | Architecture::Qwen3 => match self.flag("use_sliding_window")? {
                false => Ok(None),
                true => Err(refuse("use_sliding_window", true, "Qwen without sliding windows is supported")),
            },
        }
    }

    fn quantization(&self) -> Result<Option<Quantization>, Error> {
        let Some(value) = self.get("quantization_config") else { return Ok(None) };
        let expected =
            "fbgemm_fp8, compressed-tensors in float-quantized format, and fp8 with weight_block_size are supported";
        let known = value.as_object().and_then(Quantization::parse);
        known.map(Some).ok_or_else(|| refuse("quantization_config", value, expected))
    }

    fn architecture(&self) -> Result<Architecture, Error> {
        let class = self.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        let model_type = self.get("model_type").and_then(Value::as_str);
        let known = Architecture::ALL
            .iter()
            .find(|(_, name, kind)| class.map_or(model_type == Some(kind), |class| class == *name));
        known.map(|&(architecture, ..)| architecture).ok_or_else(|| {
            let (field, found) = match class {
                Some(class) => ("architectures", class),
                None => ("model_type", model_type.unwrap_or("missing")),
            };
            let names = Architecture::ALL.map(|(_, name, _)| name).join(", ");
            refuse(field, found, &format!("{names} are supported"))
        })
    }

    /// Refuses what would change the numbers and is not computed here.
    fn check_supported(&self) -> Result<(), Error> {
        if let Some(value) = self.get("hidden_act").filter(|value| value.as_str() != Some("silu")) {
            return Err(refuse("hidden_act", value, "silu is supported"));
        }
        if let Some(value) = self.get("partial_rotary_factor").filter(|value| value.as_f64() != Some(1.0)) {
            return Err(refuse("partial_rotary_factor", value, "1 is supported"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn small() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": [2, 3],
        })
    }

    fn with(field: &str, value: Value) -> Result<LlamaConfig, Error> {
        let mut config = small();
        config[field] = value;
        LlamaConfig::parse(&config.to_string())
    }

    #[test]
    fn absent_fields_have_the_usual_values() {
        let config = LlamaConfig::parse(&small().to_string()).unwrap();
        assert_eq!((config.kv_heads, config.head_dim, config.max_positions), (4, 16, 2048));
        assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-6, 10000.0));
        assert_eq!((config.bos_token_id, config.eos_token_id), (Some(1), Some(2)));
        assert!(!config.tie_word_embeddings);
    }

    #[test]
    fn older_and_newer_forms_say_the_same() {
        let old = with("rope_theta", json!(500000.0)).unwrap();
        let new = with("rope_parameters", json!({"rope_theta": 500000.0, "rope_type": "default"})).unwrap();
        assert_eq!(old, new);
        assert_eq!(with("rope_scaling", Value::Null).unwrap().rope_theta, 10000.0);
    }

    #[test]
    fn what_is_not_supported_is_named() {
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
            let error = with(field, value).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
        let mut config = small();
        config.as_object_mut().unwrap().remove("num_hidden_layers");
        let error = LlamaConfig::parse(&config.to_string()).unwrap_err().to_string();
        assert_eq!(error, "config.json: num_hidden_layers is missing; it must be a whole number from 1 to 4096");
    }

    #[test]
    fn the_families_differ_in_what_is_absent() {
        let family = |name: &str| {
            let mut config = small();
            config["architectures"] = json!([name]);
            config["num_key_value_heads"] = json!(2);
            config["attention_bias"] = json!(true);
            LlamaConfig::parse(&config.to_string()).unwrap()
        };
        let [llama, mistral, qwen2, qwen3] = Architecture::ALL.map(|(_, name, _)| family(name));
        assert_eq!((llama.sliding_window, mistral.sliding_window, qwen2.sliding_window), (None, Some(4096), None));
        assert_eq!((llama.head_dim, qwen2.head_dim, qwen3.head_dim), (16, 16, 128));
        assert_eq!((llama.output_bias, qwen2.qkv_bias, qwen2.output_bias), (true, true, false));
        assert_eq!((llama.qk_norm, qwen3.qk_norm), (false, true));
    }

    #[test]
    fn rope_types_are_read_in_either_form() {
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        let expected = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        for field in ["rope_scaling", "rope_parameters"] {
            assert_eq!(with(field, llama3.clone()).unwrap().rope_scaling, expected);
        }
        let old = with("rope_scaling", json!({"type": "linear", "factor": 2.0})).unwrap();
        assert_eq!(old.rope_scaling, RopeScaling::Linear { factor: 2.0 });
        let yarn =
            with("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}));
        let RopeScaling::Yarn { attention_factor, beta_fast, truncate, .. } = yarn.unwrap().rope_scaling else {
            panic!("yarn is yarn")
        };
        assert!((attention_factor - 1.138_629_436).abs() < 1e-9);
        assert_eq!((beta_fast, truncate), (32.0, true));
        let error = with("rope_scaling", json!({"rope_type": "linear"})).unwrap_err().to_string();
        assert!(error.contains("factor is missing"), "{error}");
    }

    #[test]
    fn two_rope_forms_must_say_the_same() {
        let both = |newer: Value, older: Value| {
            let mut config = small();
            config["rope_parameters"] = newer;
            config["rope_scaling"] = older;
            LlamaConfig::parse(&config.to_string())
        };
        let linear = json!({"type": "linear", "factor": 2.0});
        let error = both(json!({"rope_type": "default", "rope_theta": 1e6}), linear.clone()).unwrap_err().to_string();
        assert!(error.contains("rope_scaling is Linear { factor: 2.0 }; rope_parameters is Default"), "{error}");
        let agreed = both(json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}), linear.clone()).unwrap();
        assert_eq!((agreed.rope_theta, agreed.rope_scaling), (1e6, RopeScaling::Linear { factor: 2.0 }));
        assert_eq!(both(Value::Null, linear).unwrap().rope_scaling, RopeScaling::Linear { factor: 2.0 });

        let thetas = |older: Value, newer: f64| {
            let mut config = small();
            config["rope_theta"] = older;
            config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": newer});
            LlamaConfig::parse(&config.to_string())
        };
        let error = thetas(json!(1e4), 1e6).unwrap_err().to_string();
        assert!(error.contains("rope_theta is 10000; rope_parameters.rope_theta is 1000000"), "{error}");
        for older in [json!(1e6), Value::Null] {
            assert_eq!(thetas(older, 1e6).unwrap().rope_theta, 1e6);
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".{0,200}", field in "[a-z_]{1,24}", number in any::<f64>()) {
            let _ = LlamaConfig::parse(&text);
            let _ = with(&field, json!(number));
            for known in ["hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "rope_parameters"] {
                let _ = with(known, json!(number as i64));
                let _ = with(known, json!({field.clone(): number}));
            }
        }
    }
}
