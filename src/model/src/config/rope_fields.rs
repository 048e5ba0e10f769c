//! Parser of config.json's rotary fields, in their older and their newer form.
//!
//! The older form is `rope_scaling` beside `rope_theta`; the newer form is `rope_parameters`, which has `rope_theta`
//! inside. transformers accepts every mixture: a theta inside either object has priority over the one at the top level,
//! `original_max_position_embeddings` at the top level has priority over the one inside, and a `rope_scaling` that is
//! not empty replaces `rope_parameters`. Here, values that contradict each other are rejected instead.

use serde_json::Value;

use super::config_fields::ROPE;
use super::json_fields::{JsonFields, inside, invalid};
use super::rope::RopeScaling;
use crate::error::Error;

/// The base of the rotary angles if config.json has none.
const DEFAULT_THETA: f64 = 10000.0;

/// The rotary fields of a configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rope {
    pub(super) theta: f64,
    pub(super) scaling: RopeScaling,
}

impl JsonFields<'_> {
    /// Reads the base and the scaling from `rope_parameters`, `rope_scaling` and the top level. If both objects are
    /// present, they must agree.
    pub(super) fn rope(&self, max_positions: usize) -> Result<Rope, Error> {
        let newer = self.rope_in("rope_parameters", max_positions)?;
        let older = self.rope_in("rope_scaling", max_positions)?;
        let json = |field: &str| self.get(field).map(Value::to_string).unwrap_or_default();
        match (newer, older) {
            (Some(newer), Some(older)) if newer.scaling != older.scaling => Err(invalid(
                "rope_scaling",
                json("rope_scaling"),
                &format!("rope_parameters is {}; the two must have the same scaling", json("rope_parameters")),
            )),
            (Some(newer), Some(older)) if newer.theta != older.theta => Err(invalid(
                "rope_scaling",
                format!("used with rope_theta {}", older.theta),
                &format!("rope_parameters has rope_theta {}; the two must be equal", newer.theta),
            )),
            (newer, older) => match newer.or(older) {
                Some(rope) => Ok(rope),
                None => {
                    self.reject_null("rope_theta")?;
                    let theta = self.positive_or("rope_theta", DEFAULT_THETA)?;
                    Ok(Rope { theta, scaling: RopeScaling::Default })
                }
            },
        }
    }

    /// Reads one of the two objects; returns `None` if it is absent or empty.
    fn rope_in(&self, field: &str, max_positions: usize) -> Result<Option<Rope>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| invalid(field, value, "it must be an object"))?;
        if object.is_empty() {
            return Ok(None);
        }
        if let Some(rejected) = ROPE.rejected(object) {
            return Err(invalid(&format!("{field}.{}", rejected.name), rejected.value, &rejected.expected));
        }
        let rope = JsonFields(object);
        rope.reject_null("rope_theta").map_err(|error| inside(field, error))?;
        if rope.get("rope_theta").is_none() {
            self.reject_null("rope_theta")?;
        }
        let theta = self.same_or(field, &rope, "rope_theta", DEFAULT_THETA)?;
        let original = self.same_or(field, &rope, "original_max_position_embeddings", max_positions as f64)?;
        let scaling = rope.scaling(original, max_positions).map_err(|error| inside(field, error))?;
        Ok(Some(Rope { theta, scaling }))
    }

    /// Reads a positive number that may be inside a rotary object, at the top level, or in both places if it is equal.
    fn same_or(&self, object: &str, rope: &JsonFields<'_>, field: &str, default: f64) -> Result<f64, Error> {
        let outer = self.positive_or(field, default)?;
        let inner = rope.positive_or(field, outer).map_err(|error| inside(object, error))?;
        if self.get(field).is_some() && inner != outer {
            let expected = format!("{object}.{field} is {inner}, and the two must be equal");
            return Err(invalid(field, outer, &expected));
        }
        Ok(inner)
    }

    /// Returns the rope type. The older name of the field is `type`.
    fn rope_type(&self) -> Result<&str, Error> {
        let names = [self.get("rope_type"), self.get("type")];
        if let [Some(newer), Some(older)] = names
            && newer != older
        {
            return Err(invalid("type", older, &format!("rope_type is {newer}, and the two must be equal")));
        }
        match names.into_iter().flatten().next() {
            Some(name) => name.as_str().ok_or_else(|| invalid("rope_type", name, "it must be a string")),
            // transformers reads an object without a type as no scaling.
            None => Ok("default"),
        }
    }

    /// Reads the scaling in a rotary object, given the context length of pretraining.
    fn scaling(&self, original: f64, max_positions: usize) -> Result<RopeScaling, Error> {
        let name = self.rope_type()?;
        Ok(match name {
            "default" => match self.positive_or("factor", 1.0)? {
                1.0 => RopeScaling::Default,
                factor => return Err(invalid("factor", factor, "it requires a rope_type other than default")),
            },
            // Dynamic NTK scaling changes nothing up to max_position_embeddings, and longer sequences are rejected.
            "dynamic" => self.required_positive("factor").map(|_| RopeScaling::Default)?,
            "linear" => RopeScaling::Linear { factor: self.required_positive("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: self.required_positive("factor")?,
                low: self.required_positive("low_freq_factor")?,
                high: self.required_positive("high_freq_factor")?,
                original,
            },
            "yarn" => self.yarn(original, max_positions)?,
            _ => {
                let expected = "only rope_type default, linear, dynamic, llama3 and yarn are supported";
                return Err(invalid("rope_type", name, expected));
            }
        })
    }

    /// Reads YaRN's fields, given the context length of pretraining.
    fn yarn(&self, original: f64, max_positions: usize) -> Result<RopeScaling, Error> {
        // transformers derives a factor that is null, but requires the field.
        let factor = match self.0.get("factor") {
            Some(Value::Null) => max_positions as f64 / original,
            _ => self.required_positive("factor")?,
        };
        Ok(RopeScaling::Yarn {
            factor,
            original,
            beta_fast: self.positive_or("beta_fast", 32.0)?,
            beta_slow: self.positive_or("beta_slow", 1.0)?,
            attention_factor: self.yarn_attention_factor(factor)?,
            // A null is false in Python.
            truncate: !self.0.contains_key("truncate") || self.flag("truncate")?,
        })
    }

    /// Reads YaRN's attention factor. The default is equation 22 of the YaRN paper, `0.1 ln(factor) + 1`, or the ratio
    /// of two such terms if `mscale` and `mscale_all_dim` are present.
    fn yarn_attention_factor(&self, factor: f64) -> Result<f64, Error> {
        let equation_22 = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let default = match (self.number_or("mscale", 0.0)?, self.number_or("mscale_all_dim", 0.0)?) {
            (0.0, _) | (_, 0.0) => equation_22(1.0),
            (one, all) => equation_22(one) / equation_22(all),
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
        assert!(error.contains(r#"rope_scaling is {"factor":2.0,"type":"linear"}; rope_parameters is {"#), "{error}");
        let agreed = both(json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), linear.clone()).unwrap();
        assert_eq!((agreed.rope_theta, agreed.rope_scaling), (1e4, RopeScaling::Linear { factor: 2.0 }));
        // transformers would use the default theta, 10000, because rope_scaling replaces rope_parameters.
        let error = both(json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}), linear.clone());
        let error = error.unwrap_err().to_string();
        let expected =
            "rope_scaling is used with rope_theta 10000; rope_parameters has rope_theta 1000000; the two must";
        assert!(error.contains(expected), "{error}");
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
