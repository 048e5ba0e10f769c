//! Parser of config.json's rotary fields, in their older and their newer form.

use serde_json::Value;

use super::json_fields::{JsonFields, invalid};
use super::rope::RopeScaling;
use crate::error::Error;

impl JsonFields<'_> {
    /// Reads the newer `rope_parameters.rope_theta` or the older `rope_theta`. If both are present, they must be equal.
    pub(super) fn rope_theta(&self) -> Result<f64, Error> {
        let theta = |fields: JsonFields<'_>| fields.positive_or("rope_theta", 10000.0);
        let older = theta(JsonFields(self.0))?;
        let newer = match self.get("rope_parameters").and_then(Value::as_object) {
            Some(rope) if rope.contains_key("rope_theta") => theta(JsonFields(rope))?,
            _ => return Ok(older),
        };
        if self.get("rope_theta").is_some() && newer != older {
            let newer = format!("rope_parameters.rope_theta is {newer}, and the two must be equal");
            return Err(invalid("rope_theta", older, &newer));
        }
        Ok(newer)
    }

    /// Reads the newer `rope_parameters` or the older `rope_scaling`. If both are present, they must be equal.
    pub(super) fn rope_scaling(&self, max_positions: usize) -> Result<RopeScaling, Error> {
        let newer = self.rope_scaling_in("rope_parameters", max_positions)?;
        let older = self.rope_scaling_in("rope_scaling", max_positions)?;
        match (newer, older) {
            (Some(newer), Some(older)) if newer != older => Err(invalid(
                "rope_scaling",
                format!("{older:?}"),
                &format!("rope_parameters is {newer:?}, and the two must be equal"),
            )),
            (newer, older) => Ok(newer.or(older).unwrap_or(RopeScaling::Default)),
        }
    }

    /// Reads the scaling in one of the two fields; returns `None` if the field is absent.
    fn rope_scaling_in(&self, field: &str, max_positions: usize) -> Result<Option<RopeScaling>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let rope = JsonFields(value.as_object().ok_or_else(|| invalid(field, value, "it must be an object"))?);
        let name = rope.get("rope_type").or_else(|| rope.get("type")).map_or(Some("default"), Value::as_str);
        let original = || {
            let top_level = self.get("original_max_position_embeddings").and_then(Value::as_f64);
            rope.positive_or("original_max_position_embeddings", top_level.unwrap_or(max_positions as f64))
        };
        Ok(Some(match name {
            // Dynamic NTK scaling changes nothing up to max_position_embeddings, and longer sequences are rejected.
            Some("default" | "dynamic") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear { factor: rope.required_positive("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: rope.required_positive("factor")?,
                low: rope.required_positive("low_freq_factor")?,
                high: rope.required_positive("high_freq_factor")?,
                original: original()?,
            },
            Some("yarn") => rope.yarn(original()?, max_positions)?,
            _ => {
                return Err(invalid(
                    field,
                    value,
                    "only rope_type default, linear, dynamic, llama3 and yarn are supported",
                ));
            }
        }))
    }

    /// Reads YaRN's fields, given the context length of pretraining.
    fn yarn(&self, original: f64, max_positions: usize) -> Result<RopeScaling, Error> {
        let factor = self.positive_or("factor", max_positions as f64 / original)?;
        Ok(RopeScaling::Yarn {
            factor,
            original,
            beta_fast: self.positive_or("beta_fast", 32.0)?,
            beta_slow: self.positive_or("beta_slow", 1.0)?,
            attention_factor: self.yarn_attention_factor(factor)?,
            truncate: self.get("truncate").is_none() || self.flag("truncate")?,
        })
    }

    /// Reads YaRN's attention factor. The default is equation 22 of the YaRN paper, `0.1 ln(factor) + 1`, or the ratio
    /// of two such terms if `mscale` and `mscale_all_dim` are present.
    fn yarn_attention_factor(&self, factor: f64) -> Result<f64, Error> {
        let equation_22 = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let scales = [self.get("mscale"), self.get("mscale_all_dim")].map(|value| value.and_then(Value::as_f64));
        let default = match scales {
            [Some(one), Some(all)] if one != 0.0 && all != 0.0 => equation_22(one) / equation_22(all),
            _ => equation_22(1.0),
        };
        self.positive_or("attention_factor", default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LlamaConfig;
    use crate::config::test_configs::{parse_with, small_config};
    use serde_json::json;

    #[test]
    fn older_and_newer_forms_are_equivalent() {
        let old = parse_with("rope_theta", json!(500000.0)).unwrap();
        let new = parse_with("rope_parameters", json!({"rope_theta": 500000.0, "rope_type": "default"})).unwrap();
        assert_eq!(old, new);
        assert_eq!(parse_with("rope_scaling", Value::Null).unwrap().rope_theta, 10000.0);
    }

    #[test]
    fn rope_types_are_read_in_either_form() {
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        let expected = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        for field in ["rope_scaling", "rope_parameters"] {
            assert_eq!(parse_with(field, llama3.clone()).unwrap().rope_scaling, expected);
        }
        let old = parse_with("rope_scaling", json!({"type": "linear", "factor": 2.0})).unwrap();
        assert_eq!(old.rope_scaling, RopeScaling::Linear { factor: 2.0 });
        let yarn = parse_with(
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}),
        );
        let RopeScaling::Yarn { attention_factor, beta_fast, truncate, .. } = yarn.unwrap().rope_scaling else {
            panic!("expected RopeScaling::Yarn")
        };
        assert!((attention_factor - 1.138_629_436).abs() < 1e-9);
        assert_eq!((beta_fast, truncate), (32.0, true));
        let error = parse_with("rope_scaling", json!({"rope_type": "linear"})).unwrap_err().to_string();
        assert!(error.contains("factor is missing"), "{error}");
    }

    #[test]
    fn conflicting_older_and_newer_forms_are_rejected() {
        let both = |newer: Value, older: Value| {
            let mut config = small_config();
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
            let mut config = small_config();
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
}
