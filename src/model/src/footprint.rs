//! The memory and arithmetic that a model needs, computed from config.json only.

use serde_json::Value;

use crate::config::LlamaConfig;
use crate::config::quantization::Quantization;
use crate::config::tensors::{TensorSpec, expected_tensors};
use crate::error::Error;

/// The sizes of a model, computed before its weights are downloaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Footprint {
    /// The configuration in config.json.
    pub config: LlamaConfig,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the weights as the checkpoint stores them, scales included.
    pub weight_bytes: u64,
    /// Number of elements in one token's keys and values.
    kv_values_per_token: u64,
    /// Number of weights in the matrices by which every token is multiplied.
    matmul_weights: u64,
}

impl Footprint {
    /// Parses config.json and computes the sizes.
    ///
    /// # Errors
    ///
    /// Same as [`LlamaConfig::parse`].
    pub fn parse(json: &str) -> Result<Self, Error> {
        let config = LlamaConfig::parse(json)?;
        let value: Value = serde_json::from_str(json).unwrap_or_default();
        let stored_bytes =
            bytes_per_weight(value.get("dtype").or_else(|| value.get("torch_dtype")).and_then(Value::as_str));
        let unquantized = unquantized_modules(&value);
        let (mut parameters, mut weight_bytes) = (0, 0);
        // Every token is multiplied by the head. An embedding that is not also the head is only looked up.
        let mut matmul_weights =
            if config.tie_word_embeddings { config.vocab_size * config.hidden_size } else { 0 } as u64;
        for TensorSpec { name, shape, is_linear } in expected_tensors(&config) {
            let [rows, columns] = [shape[0], shape.get(1).copied().unwrap_or(1)];
            let count = rows as u64 * columns as u64;
            parameters += count;
            matmul_weights += if is_linear { count } else { 0 };
            let is_quantized = is_linear && !unquantized.iter().any(|module| is_in_module(&name, module));
            weight_bytes += match config.quantization {
                Some(quantization) if is_quantized => count + scale_bytes(quantization, rows, columns),
                _ => count * stored_bytes,
            };
        }
        let kv_values_per_token = 2 * (config.layers * config.kv_heads * config.head_dim) as u64;
        Ok(Self { config, parameters, weight_bytes, kv_values_per_token, matmul_weights })
    }

    /// Returns the size in bytes of one token's keys and values in a cache with `value_bytes` bytes per element: 4 for
    /// f32, 2 for bf16, 1 for FP8.
    pub fn kv_bytes_per_token(&self, value_bytes: u64) -> u64 {
        self.kv_values_per_token * value_bytes
    }

    /// Returns the number of multiplications and additions per token, averaged over a sequence of `length` tokens: two
    /// for each matrix weight and, in each layer's attention, four for each earlier token and each dimension of each
    /// query head.
    pub fn operations_per_token(&self, length: u64) -> u64 {
        let LlamaConfig { layers, heads, head_dim, .. } = self.config;
        2 * self.matmul_weights + 4 * (layers * heads * head_dim) as u64 * length / 2
    }

    /// Returns the size in bytes of the largest share of one token's keys and values that any rank holds. Ranks divide
    /// the key-value heads; if there are more ranks than heads, several ranks hold the same head.
    pub fn kv_bytes_per_token_and_rank(&self, value_bytes: u64, ranks: u64) -> u64 {
        let kv_heads = self.config.kv_heads as u64;
        self.kv_bytes_per_token(value_bytes) / kv_heads.max(1) * kv_heads.div_ceil(ranks.max(1))
    }

    /// Returns the number of bytes that weights and the cache may use out of `memory` bytes: nine tenths. The rest is
    /// for activations and the driver.
    pub fn usable_memory(memory: u64) -> u64 {
        memory - memory / 10
    }

    /// Returns the number of cached tokens that fit, in addition to the weights, on `devices` devices with `memory`
    /// bytes each; `None` if the weights do not fit. Only the [`usable_memory`](Self::usable_memory) of each device
    /// counts.
    pub fn tokens_that_fit(&self, devices: u64, memory: u64, value_bytes: u64) -> Option<u64> {
        let room = (devices * Self::usable_memory(memory)).checked_sub(self.weight_bytes)?;
        Some(room / self.kv_bytes_per_token(value_bytes).max(1))
    }

    /// Returns the smallest power of two such that this number of devices, with `memory` bytes each, holds the weights
    /// and a cache for one sequence of `tokens` tokens. The result is at most 2^20, even if more are needed.
    pub fn devices_needed(&self, memory: u64, value_bytes: u64, tokens: u64) -> u64 {
        let fits =
            |devices: &u64| self.tokens_that_fit(*devices, memory, value_bytes).is_some_and(|room| room >= tokens);
        (0..20).map(|power| 1 << power).find(fits).unwrap_or(1 << 20)
    }
}

/// Returns the size in bytes of an FP8 matrix's f32 scales.
fn scale_bytes(quantization: Quantization, rows: usize, columns: usize) -> u64 {
    let scales = match quantization {
        Quantization::Rows { .. } => rows,
        Quantization::Blocks { rows: block_rows, columns: block_columns } => {
            rows.div_ceil(block_rows) * columns.div_ceil(block_columns)
        }
    };
    4 * scales as u64
}

/// Returns the number of bytes per weight for a dtype in config.json.
fn bytes_per_weight(dtype: Option<&str>) -> u64 {
    match dtype {
        Some("bfloat16" | "float16") => 2,
        _ => 4,
    }
}

/// Lists the modules that a quantized checkpoint leaves unquantized.
fn unquantized_modules(config: &Value) -> Vec<String> {
    let quantization = config.get("quantization_config");
    let list = |field: &str| quantization.and_then(|q| q.get(field)).and_then(Value::as_array);
    let names = ["modules_to_not_convert", "ignore"].into_iter().filter_map(list).flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Returns whether a tensor or module is the given module or is inside it.
fn is_in_module(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GB: u64 = 1_000_000_000;

    fn llama(hidden: usize, mlp: usize, layers: usize, heads: usize) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": hidden, "intermediate_size": mlp,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8,
            "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
        })
    }

    #[test]
    fn sizes_match_the_published_ones() {
        let size = |config: Value| Footprint::parse(&config.to_string()).unwrap();
        let small = size(llama(4096, 14336, 32, 32));
        assert_eq!((small.parameters, small.weight_bytes), (8_030_261_248, 16_060_522_496));
        assert_eq!(small.kv_bytes_per_token(2), 131_072);
        let by_rank = [1, 3, 8, 16].map(|ranks| small.kv_bytes_per_token_and_rank(2, ranks));
        assert_eq!(by_rank, [131_072, 3 * 16_384, 16_384, 16_384]);
        let products = 2 * (8_030_261_248 - 128_256 * 4096 - 65 * 4096);
        assert_eq!(small.operations_per_token(2048), products + 4 * 32 * 4096 * 1024);
        assert_eq!(small.devices_needed(80 * GB, 2, 131_072), 1);
        assert_eq!(size(llama(8192, 28672, 80, 64)).parameters, 70_553_706_496);
        assert_eq!(size(llama(16384, 53248, 126, 128)).parameters, 405_853_388_800);
    }

    #[test]
    fn the_largest_sizes_do_not_overflow() {
        let greatest = json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 1 << 20, "hidden_size": 1 << 20,
            "intermediate_size": 1 << 20, "num_hidden_layers": 1 << 12, "num_attention_heads": 1 << 12,
            "head_dim": 1024, "max_position_embeddings": 1 << 20,
        });
        let footprint = Footprint::parse(&greatest.to_string()).unwrap();
        assert!(footprint.parameters > 1 << 54);
        assert_eq!(footprint.devices_needed(80 * GB, 4, 1 << 20), 1 << 20);
    }

    /// Checks the L2M paper's density estimator: Llama 405B in FP8, with attention in bf16, on eight 80 GB H100s.
    #[test]
    fn llama_405b_in_fp8_needs_eight_h100() {
        let kept: Vec<String> =
            (0..126).map(|layer| format!("model.layers.{layer}.self_attn")).chain(["lm_head".into()]).collect();
        let mut config = llama(16384, 53248, 126, 128);
        config["quantization_config"] = json!({"quant_method": "fbgemm_fp8", "modules_to_not_convert": kept});
        let footprint = Footprint::parse(&config.to_string()).unwrap();
        let mlp: u64 = 126 * 3 * 16384 * 53248;
        let scales: u64 = 126 * (2 * 53248 + 16384) * 4;
        assert_eq!(footprint.weight_bytes, mlp + scales + 2 * (405_853_388_800 - mlp));
        assert_eq!(footprint.devices_needed(80 * GB, 2, 2049), 8);
        assert_eq!(footprint.devices_needed(141 * GB, 2, 2049), 4);
        assert_eq!(footprint.tokens_that_fit(4, 80 * GB, 2), None);
    }
}
