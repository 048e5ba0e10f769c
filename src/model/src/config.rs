//! `LlamaConfig`: config.json, in its older and newer forms, and what of it is not supported.

use serde_json::{Map, Value};

use crate::Error;

/// Greatest value a size may have: large enough for every model, small enough that products of three do not overflow.
const MAX_SIZE: u64 = 1 << 20;

/// What the forward pass needs to know of a Llama.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
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
        fields.check_supported()?;

        let hidden_size = fields.size("hidden_size", None)?;
        let heads = fields.size("num_attention_heads", None)?;
        let kv_heads = fields.size("num_key_value_heads", Some(heads))?;
        if heads % kv_heads != 0 {
            return Err(refuse(
                "num_key_value_heads",
                kv_heads,
                &format!("it must divide num_attention_heads ({heads})"),
            ));
        }
        let head_dim = fields.size("head_dim", Some(hidden_size / heads))?;
        if head_dim == 0 || head_dim % 2 != 0 || head_dim > 1024 {
            return Err(refuse("head_dim", head_dim, "it must be even, from 2 to 1024"));
        }
        Ok(Self {
            vocab_size: fields.size("vocab_size", None)?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size", None)?,
            layers: fields.size("num_hidden_layers", None)?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
            max_positions: fields.size("max_position_embeddings", Some(2048))?,
            rope_theta: fields.rope_theta()?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
            bos_token_id: fields.token("bos_token_id")?,
            eos_token_id: fields.token("eos_token_id")?,
        })
    }
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    /// The field, unless it is absent or null.
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn size(&self, field: &str, default: Option<usize>) -> Result<usize, Error> {
        let expected = || format!("it must be a whole number from 1 to {MAX_SIZE}");
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(refuse(field, "missing", &expected())),
            (Some(value), _) => match value.as_u64() {
                Some(size) if (1..=MAX_SIZE).contains(&size) => Ok(size as usize),
                _ => Err(refuse(field, value, &expected())),
            },
        }
    }

    fn positive(&self, field: &str, default: f64) -> Result<f64, Error> {
        let Some(value) = self.get(field) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => Ok(number),
            _ => Err(refuse(field, value, "it must be a positive number")),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, Error> {
        let Some(value) = self.get(field) else { return Ok(false) };
        value.as_bool().ok_or_else(|| refuse(field, value, "it must be true or false"))
    }

    /// A token id, or the first of a list of them.
    fn token(&self, field: &str) -> Result<Option<u32>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let first = value.as_array().and_then(|ids| ids.first()).unwrap_or(value);
        match first.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(refuse(field, value, "it must be a token id or a list of them")),
        }
    }

    /// The newer `rope_parameters.rope_theta`, or the older `rope_theta`.
    fn rope_theta(&self) -> Result<f64, Error> {
        match self.get("rope_parameters").and_then(Value::as_object) {
            Some(rope) if rope.contains_key("rope_theta") => Fields(rope).positive("rope_theta", 10000.0),
            _ => self.positive("rope_theta", 10000.0),
        }
    }

    /// Refuses whatever would change the numbers and is not computed here.
    fn check_supported(&self) -> Result<(), Error> {
        let architecture = self.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        if architecture.is_some_and(|name| name != "LlamaForCausalLM") {
            return Err(refuse("architectures", &self.0["architectures"], "LlamaForCausalLM is supported"));
        }
        let model_type = self.get("model_type").and_then(Value::as_str);
        if architecture.is_none() && model_type != Some("llama") {
            let found = self.0.get("model_type").map_or("missing".to_owned(), ToString::to_string);
            return Err(refuse("model_type", found, "llama is supported"));
        }
        if let Some(value) = self.get("hidden_act").filter(|value| value.as_str() != Some("silu")) {
            return Err(refuse("hidden_act", value, "silu is supported"));
        }
        for field in ["attention_bias", "mlp_bias"] {
            if self.flag(field)? {
                return Err(refuse(field, true, "models without biases are supported"));
            }
        }
        if let Some(value) = self.get("quantization_config") {
            return Err(refuse("quantization_config", value, "f32, f16 and bf16 checkpoints are supported"));
        }
        for field in ["rope_parameters", "rope_scaling"] {
            let Some(value) = self.get(field) else { continue };
            let rope = value.as_object().ok_or_else(|| refuse(field, value, "it must be an object"))?;
            let name = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
            if name != Some("default") {
                return Err(refuse(field, value, "rope_type default is supported"));
            }
        }
        Ok(())
    }
}

fn refuse(field: &str, found: impl ToString, expected: &str) -> Error {
    let mut found = found.to_string();
    if let Some((cut, _)) = found.char_indices().nth(200) {
        found.truncate(cut);
        found.push_str("...");
    }
    Error::Config { field: field.to_owned(), found, expected: expected.to_owned() }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
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
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("quantization_config", json!({"quant_method": "fbgemm_fp8"})),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
            ("rope_parameters", json!({"rope_type": "yarn"})),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(15)),
            ("hidden_size", json!(-1)),
            ("hidden_size", json!(1u64 << 40)),
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
        assert_eq!(error, "config.json: num_hidden_layers is missing; it must be a whole number from 1 to 1048576");
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
