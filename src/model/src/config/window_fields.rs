//! Parser of config.json's sliding window, and of the kinds of layers that depend on it.

use serde_json::Value;

use super::Architecture;
use super::json_fields::{JsonFields, invalid};
use crate::error::Error;

/// Mistral's window if config.json has none.
const MISTRAL_WINDOW: usize = 4096;

/// Qwen's window if config.json has none.
const QWEN_WINDOW: usize = 4096;

/// Number of Qwen's first layers without a window if config.json has none.
const QWEN_WINDOW_LAYERS: usize = 28;

impl JsonFields<'_> {
    /// Reads the sliding window that every layer has; `None` if no layer has one. Models in which only some layers have
    /// a window are not supported.
    pub(super) fn sliding_window(
        &self,
        architecture: Architecture,
        layers: usize,
        max_positions: usize,
    ) -> Result<Option<usize>, Error> {
        let window = match architecture {
            Architecture::Mistral => self.mistral_window(max_positions)?,
            Architecture::Llama => {
                self.reject_window(architecture, max_positions)?;
                None
            }
            Architecture::Qwen2 | Architecture::Qwen3 => {
                self.reject_qwen_window(architecture, layers, max_positions)?;
                None
            }
        };
        self.check_layer_types(layers, window)?;
        Ok(window)
    }

    /// Returns `true` if `use_sliding_window` is present and false.
    fn window_is_off(&self) -> Result<bool, Error> {
        Ok(self.get("use_sliding_window").is_some() && !self.flag("use_sliding_window")?)
    }

    /// Reads Mistral's window, which is 4096 by default, and absent if it is null.
    fn mistral_window(&self, max_positions: usize) -> Result<Option<usize>, Error> {
        if self.0.get("sliding_window").is_some_and(Value::is_null) {
            return Ok(None);
        }
        let window = self.size("sliding_window", Some(MISTRAL_WINDOW))?;
        if self.window_is_off()? && window < max_positions {
            let expected = "MistralForCausalLM always uses its window; set sliding_window to null if it has none";
            return Err(invalid("use_sliding_window", false, expected));
        }
        Ok(Some(window))
    }

    /// Rejects a window that is shorter than the longest sequence, unless it is switched off.
    fn reject_window(&self, architecture: Architecture, max_positions: usize) -> Result<(), Error> {
        let window = self.size("sliding_window", Some(max_positions))?;
        if !self.window_is_off()? && window < max_positions {
            let expected = format!(
                "{} attends to all {max_positions} tokens; set it to null if the model has no window",
                architecture.class_name()
            );
            return Err(invalid("sliding_window", window, &expected));
        }
        Ok(())
    }

    /// Rejects Qwen's window if it is switched on, shorter than the longest sequence, and used by a layer.
    fn reject_qwen_window(&self, architecture: Architecture, layers: usize, max_positions: usize) -> Result<(), Error> {
        let has_window = self.0.get("sliding_window").is_none_or(|window| !window.is_null());
        let first = self.index_or("max_window_layers", QWEN_WINDOW_LAYERS)?;
        let lists_layers = self.get("layer_types").is_some();
        if !self.flag("use_sliding_window")? || !has_window || first >= layers || lists_layers {
            return Ok(());
        }
        let expected = format!("{} is supported only without a sliding window", architecture.class_name());
        match self.size("sliding_window", Some(QWEN_WINDOW))? < max_positions {
            true => Err(invalid("use_sliding_window", true, &expected)),
            false => Ok(()),
        }
    }

    /// Checks that `layer_types`, if present, describes every layer as the window does.
    fn check_layer_types(&self, layers: usize, window: Option<usize>) -> Result<(), Error> {
        let Some(value) = self.get("layer_types") else { return Ok(()) };
        let kind = if window.is_some() { "sliding_attention" } else { "full_attention" };
        let matches = |list: &Vec<Value>| list.len() == layers && list.iter().all(|layer| layer == kind);
        match value.as_array().is_some_and(matches) {
            true => Ok(()),
            false => Err(invalid("layer_types", value, &format!("it must list {kind} {layers} times"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LlamaConfig;
    use crate::config::test_configs::small_config;
    use serde_json::json;

    /// Reads the window of the small model with two layers, of the given architecture and with other fields changed.
    fn window(class: &str, fields: Value) -> Result<Option<usize>, String> {
        let mut config = small_config();
        config["architectures"] = json!([class]);
        config["num_key_value_heads"] = json!(2);
        config["max_position_embeddings"] = json!(8192);
        for (field, value) in fields.as_object().unwrap() {
            config[field] = value.clone();
        }
        LlamaConfig::parse(&config.to_string()).map(|config| config.sliding_window).map_err(|error| error.to_string())
    }

    #[test]
    fn mistral_has_a_window_unless_it_is_null() {
        let mistral = |fields| window("MistralForCausalLM", fields);
        assert_eq!(mistral(json!({})), Ok(Some(4096)));
        assert_eq!(mistral(json!({"sliding_window": 100})), Ok(Some(100)));
        assert_eq!(mistral(json!({"sliding_window": null})), Ok(None));
        let sliding = json!(["sliding_attention", "sliding_attention"]);
        assert_eq!(mistral(json!({"layer_types": sliding})), Ok(Some(4096)));
        let full = json!(["full_attention", "full_attention"]);
        assert_eq!(mistral(json!({"layer_types": full, "sliding_window": null})), Ok(None));
        assert!(mistral(json!({"layer_types": full})).unwrap_err().contains("layer_types"));
        let mixed = json!(["full_attention", "sliding_attention"]);
        assert!(mistral(json!({"layer_types": mixed})).unwrap_err().contains("layer_types"));
        assert!(mistral(json!({"use_sliding_window": false})).unwrap_err().contains("use_sliding_window"));
    }

    #[test]
    fn llama_has_no_window() {
        let llama = |fields| window("LlamaForCausalLM", fields);
        for fields in [
            json!({}),
            json!({"sliding_window": null}),
            json!({"sliding_window": 8192}),
            json!({"sliding_window": 4096, "use_sliding_window": false}),
            json!({"layer_types": ["full_attention", "full_attention"]}),
        ] {
            assert_eq!(llama(fields.clone()), Ok(None), "{fields}");
        }
        assert!(llama(json!({"sliding_window": 4096})).unwrap_err().contains("sliding_window is 4096"));
        assert!(
            llama(json!({"layer_types": ["full_attention"]}))
                .unwrap_err()
                .contains("it must list full_attention 2 times")
        );
    }

    #[test]
    fn qwen_has_no_window_unless_a_layer_uses_it() {
        for class in ["Qwen2ForCausalLM", "Qwen3ForCausalLM"] {
            for fields in [
                json!({"sliding_window": 100}),
                json!({"sliding_window": 100, "use_sliding_window": false, "max_window_layers": 0}),
                json!({"use_sliding_window": true}),
                json!({"use_sliding_window": true, "max_window_layers": 2}),
                json!({"use_sliding_window": true, "max_window_layers": 0, "sliding_window": null}),
                json!({"use_sliding_window": true, "max_window_layers": 0, "sliding_window": 8192}),
                json!({"use_sliding_window": true, "max_window_layers": 0,
                    "layer_types": ["full_attention", "full_attention"]}),
            ] {
                assert_eq!(window(class, fields.clone()), Ok(None), "{fields}");
            }
            let error = window(class, json!({"use_sliding_window": true, "max_window_layers": 1})).unwrap_err();
            assert!(error.contains("use_sliding_window is true"), "{error}");
            let error = window(class, json!({"layer_types": ["full_attention", "sliding_attention"]})).unwrap_err();
            assert!(error.contains("layer_types"), "{error}");
        }
    }
}
