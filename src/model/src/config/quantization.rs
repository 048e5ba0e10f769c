//! The layouts of FP8 weights and their scales, as `quantization_config` in config.json declares them.
//!
//! - fbgemm_fp8 (Meta) and compressed-tensors `float-quantized`: the tensor `X.weight_scale`, with one scale per row,
//!   shape `[out, 1]`, or one for the whole matrix;
//! - block FP8 (`fp8` with `weight_block_size`): the tensor `X.weight_scale_inv`, with one scale per block of rows and
//!   columns.
//!
//! In each layout, a weight is its e4m3 value times its scale.

use serde_json::{Map, Value};

use super::config_fields::{BLOCK_FP8, COMPRESSED_GROUP, COMPRESSED_TENSORS, COMPRESSED_WEIGHTS, FBGEMM_FP8};
use super::json_fields::invalid;
use super::known_fields::KnownFields;
use crate::error::Error;

/// The field of config.json that describes the quantization.
const FIELD: &str = "quantization_config";

/// The layout of the scales that a checkpoint's `quantization_config` declares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantization {
    /// One scale per row, or one for the whole matrix.
    Rows {
        /// The limit to which activations are clamped before they are quantized, `activation_scale_ub`; `None` if there
        /// is none.
        activation_limit: Option<f32>,
    },
    /// One scale per block of rows and columns.
    Blocks {
        /// Rows per block.
        rows: usize,
        /// Columns per block.
        columns: usize,
    },
}

impl Quantization {
    /// Reads a `quantization_config`, and rejects methods and fields that are not supported.
    pub(super) fn parse(value: &Value) -> Result<Self, Error> {
        let unsupported = || {
            let expected =
                "only fbgemm_fp8, float-quantized compressed-tensors, and fp8 with weight_block_size are supported";
            invalid(FIELD, value, expected)
        };
        let config = value.as_object().ok_or_else(unsupported)?;
        let text = |field: &str| config.get(field).and_then(Value::as_str);
        let quantization = match text("quant_method").ok_or_else(unsupported)? {
            "fbgemm_fp8" => {
                check_fields(FBGEMM_FP8, FIELD, config)?;
                let limit = config.get("activation_scale_ub").and_then(Value::as_f64).filter(|&limit| limit > 0.0);
                Some(Self::Rows { activation_limit: limit.map(|limit| limit as f32) })
            }
            "compressed-tensors" if text("format") == Some("float-quantized") => {
                check_fields(COMPRESSED_TENSORS, FIELD, config)?;
                check_groups(config)?;
                Some(Self::Rows { activation_limit: None })
            }
            "fp8" => {
                check_fields(BLOCK_FP8, FIELD, config)?;
                block_size(config).map(|[rows, columns]| Self::Blocks { rows, columns })
            }
            _ => None,
        };
        quantization.ok_or_else(unsupported)
    }

    /// Returns the suffix that turns a weight's name into the name of its scale tensor.
    pub(crate) fn scale_suffix(self) -> &'static str {
        match self {
            Self::Rows { .. } => "_scale",
            Self::Blocks { .. } => "_scale_inv",
        }
    }

    /// Returns the shapes that the scale tensor of a `rows` x `columns` weight may have.
    pub(crate) fn scale_shapes(self, rows: usize, columns: usize) -> Vec<Vec<usize>> {
        match self {
            Self::Rows { .. } => vec![vec![rows, 1], vec![rows], vec![1], vec![1, 1], vec![]],
            Self::Blocks { rows: r, columns: c } => vec![vec![rows.div_ceil(r), columns.div_ceil(c)]],
        }
    }
}

/// Reads `weight_block_size`: the rows and columns of a block.
fn block_size(config: &Map<String, Value>) -> Option<[usize; 2]> {
    let [rows, columns] = config.get("weight_block_size")?.as_array()?.as_slice() else { return None };
    let size = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|size| (1..=1 << 20).contains(size));
    Some([size(rows)?, size(columns)?])
}

/// Checks the fields of each group of a compressed-tensors configuration.
fn check_groups(config: &Map<String, Value>) -> Result<(), Error> {
    let groups = config.get("config_groups").and_then(Value::as_object);
    for (name, group) in groups.into_iter().flatten() {
        let path = format!("{FIELD}.config_groups.{name}");
        let group = group.as_object().ok_or_else(|| invalid(&path, group, "it must be an object"))?;
        check_fields(COMPRESSED_GROUP, &path, group)?;
        if let Some(weights) = group.get("weights").and_then(Value::as_object) {
            check_fields(COMPRESSED_WEIGHTS, &format!("{path}.weights"), weights)?;
        }
    }
    Ok(())
}

/// Checks the fields of an object in config.json.
fn check_fields(known: KnownFields, path: &str, object: &Map<String, Value>) -> Result<(), Error> {
    match known.rejected(object) {
        Some(field) => Err(invalid(&format!("{path}.{}", field.name), field.value, &field.expected)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ROWS: Quantization = Quantization::Rows { activation_limit: None };

    #[test]
    fn supported_layouts_are_recognized_and_others_rejected() {
        let parse = |value: Value| Quantization::parse(&value).ok();
        assert_eq!(parse(json!({"quant_method": "fbgemm_fp8"})), Some(ROWS));
        let limited = parse(json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}));
        assert_eq!(limited, Some(Quantization::Rows { activation_limit: Some(1200.0) }));
        let compressed = |format: &str| parse(json!({"quant_method": "compressed-tensors", "format": format}));
        assert_eq!(compressed("float-quantized"), Some(ROWS));
        assert_eq!(compressed("pack-quantized"), None);
        let block = parse(json!({"quant_method": "fp8", "weight_block_size": [128, 64]}));
        assert_eq!(block, Some(Quantization::Blocks { rows: 128, columns: 64 }));
        assert_eq!(parse(json!({"quant_method": "fp8", "weight_block_size": [0, 64]})), None);
        assert_eq!(parse(json!({"quant_method": "gptq"})), None);
    }

    #[test]
    fn fields_are_rejected_by_name() {
        let error = |value: Value| Quantization::parse(&value).unwrap_err().to_string();
        let fbgemm = error(json!({"quant_method": "fbgemm_fp8", "rotation": "hadamard"}));
        assert!(fbgemm.starts_with("config.json: quantization_config.rotation is \"hadamard\";"), "{fbgemm}");
        let block = error(json!({"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}));
        assert!(block.contains("quantization_config.scale_fmt is \"ue8m0\"; only float is supported"), "{block}");
        for (field, value) in [
            ("strategy", json!("group")),
            ("num_bits", json!(4)),
            ("type", json!("int")),
            ("symmetric", json!(false)),
            ("group_size", json!(128)),
        ] {
            let weights = json!({"num_bits": 8, "type": "float", field: value});
            let groups = json!({"group_0": {"targets": ["Linear"], "weights": weights}});
            let compressed = error(
                json!({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}),
            );
            let name = format!("quantization_config.config_groups.group_0.weights.{field} is");
            assert!(compressed.contains(&name), "{compressed}");
        }
    }
}
