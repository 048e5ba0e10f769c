//! The layouts of FP8 weights and their scales, as `quantization_config` in config.json declares them.
//!
//! - fbgemm_fp8 (Meta) and compressed-tensors `float-quantized`: the tensor `X.weight_scale`, with one scale per row,
//!   shape `[out, 1]`, or one for the whole matrix;
//! - block FP8 (`fp8` with `weight_block_size`): the tensor `X.weight_scale_inv`, with one scale per block of rows and
//!   columns.
//!
//! In each layout, a weight is its e4m3 value times its scale.

use serde_json::{Map, Value};

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
    /// Reads a `quantization_config`; returns `None` if its method is not supported.
    pub(crate) fn parse(config: &Map<String, Value>) -> Option<Self> {
        let text = |field: &str| config.get(field).and_then(Value::as_str);
        match text("quant_method")? {
            "fbgemm_fp8" => {
                let limit = config.get("activation_scale_ub").and_then(Value::as_f64).filter(|&limit| limit > 0.0);
                Some(Self::Rows { activation_limit: limit.map(|limit| limit as f32) })
            }
            "compressed-tensors" => {
                (text("format")? == "float-quantized").then_some(Self::Rows { activation_limit: None })
            }
            "fp8" => {
                let block = config.get("weight_block_size")?.as_array()?;
                let size = |i: usize| {
                    usize::try_from(block.get(i)?.as_u64()?).ok().filter(|size| (1..=1 << 20).contains(size))
                };
                Some(Self::Blocks { rows: size(0)?, columns: size(1)? })
            }
            _ => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ROWS: Quantization = Quantization::Rows { activation_limit: None };

    #[test]
    fn supported_layouts_are_recognized_and_others_rejected() {
        let parse = |value: Value| Quantization::parse(value.as_object().unwrap());
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
}
