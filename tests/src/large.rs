//! Checkpoints with the FP8 layouts of Llama-3.1-405B, including the names of all tensors and scales, at 1/64 of the
//! width.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::tiny::{Tensors, TinyLlama};

/// The shape of Llama-3.1-405B at 1/64 of the width, with the same vocabulary, number of layers and number of KV heads.
pub const SHAPE: TinyLlama = TinyLlama {
    vocab: 128_256,
    hidden: 256,
    intermediate: 832,
    layers: 126,
    heads: 16,
    kv_heads: 8,
    head_dim: 16,
    tied: false,
    max_positions: 2048,
};

/// A published layout of FP8 weights and their scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Meta's layout: one scale per output channel; attention and the MLPs of the first and last layer in bf16.
    Fbgemm,
    /// The layout `float-quantized` of compressed-tensors: one scale per matrix and one for its input, in all layers.
    Compressed,
    /// One scale per block of 128 by 128 weights, in all layers.
    Blocks,
}

/// Number of safetensors files of a checkpoint.
const SHARDS: usize = 5;

/// A tensor as it is stored.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 3] = [Self::Fbgemm, Self::Compressed, Self::Blocks];

    /// Writes a random checkpoint of [`SHAPE`] in shards; returns its dequantized tensors.
    ///
    /// # Panics
    ///
    /// If the folder cannot be written.
    pub fn write(self, dir: &Path, seed: u64) -> Tensors {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut tensors, mut stored) = (Tensors::new(), BTreeMap::new());
        for (name, shape, spread) in shapes() {
            let values = match (&shape[..], self.is_fp8(&name)) {
                (&[rows, columns], true) => self.fp8(&mut rng, &name, rows, columns, spread, &mut stored),
                _ => bf16(&mut rng, &name, &shape, spread, &mut stored),
            };
            tensors.insert(name, (shape, values));
        }
        write_shards(dir, &stored);
        let config = SHAPE.config_with(json!({"torch_dtype": "bfloat16", "quantization_config": self.config()}));
        std::fs::write(dir.join("config.json"), config.to_string()).expect("the folder is writable");
        tensors
    }

    fn is_kept(self, module: &str) -> bool {
        let first_or_last = |layer: &str| module.starts_with(&format!("model.layers.{layer}.mlp"));
        module == "lm_head"
            || (self == Self::Fbgemm && (module.contains("self_attn") || ["0", "125"].into_iter().any(first_or_last)))
    }

    fn is_fp8(self, name: &str) -> bool {
        name.contains("_proj.") && !self.is_kept(name.trim_end_matches(".weight"))
    }

    fn config(self) -> Value {
        let modules = || shapes().into_iter().filter_map(|(name, ..)| name.strip_suffix(".weight").map(str::to_owned));
        let kept: Vec<String> = modules().filter(|name| name.contains("_proj") && self.is_kept(name)).collect();
        match self {
            Self::Fbgemm => json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0,
                "modules_to_not_convert": kept.into_iter().chain(["lm_head".to_owned()]).collect::<Vec<_>>()}),
            Self::Compressed => json!({"quant_method": "compressed-tensors", "format": "float-quantized",
                "config_groups": {"group_0": {"targets": ["Linear"],
                    "weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}}}, "ignore": ["lm_head"]}),
            Self::Blocks => json!({"quant_method": "fp8", "weight_block_size": [128, 128]}),
        }
    }

    /// Adds random e4m3 weights and their scales to `stored`; returns the dequantized values.
    fn fp8(
        self,
        rng: &mut impl Rng,
        name: &str,
        rows: usize,
        columns: usize,
        spread: f32,
        stored: &mut BTreeMap<String, Stored>,
    ) -> Vec<f32> {
        let (suffix, shape, block) = match self {
            Self::Fbgemm => ("_scale", vec![rows, 1], (1, columns)),
            Self::Compressed => ("_scale", vec![1], (rows, columns)),
            Self::Blocks => ("_scale_inv", vec![rows.div_ceil(128), columns.div_ceil(128)], (128, 128)),
        };
        let count = shape.iter().product();
        let scales: Vec<f32> = (0..count).map(|_| spread / 64.0 * rng.random_range(0.5..1.5f32)).collect();
        // Magnitudes are below 2^7, and few are close to that limit.
        let bytes: Vec<u8> =
            (0..rows * columns).map(|_| rng.random_range(0..0x70) | (rng.random::<u8>() & 0x80)).collect();
        let across = columns.div_ceil(block.1);
        let value =
            |(at, &byte): (usize, &u8)| e4m3(byte) * scales[at / columns / block.0 * across + at % columns / block.1];
        let values = bytes.iter().enumerate().map(value).collect();
        let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        stored.insert(name.to_owned(), (Dtype::F8_E4M3, vec![rows, columns], bytes));
        stored.insert(format!("{name}{suffix}"), (Dtype::F32, shape, scales));
        if self == Self::Compressed {
            let input = name.replace(".weight", ".input_scale");
            stored.insert(input, (Dtype::F32, vec![1], 0.01f32.to_le_bytes().to_vec()));
        }
        values
    }
}

/// Returns the names and shapes of all tensors, and the largest distance of their values from 0 (from 1 for norms).
fn shapes() -> Vec<(String, Vec<usize>, f32)> {
    let (h, q, kv) = (SHAPE.hidden, SHAPE.heads * SHAPE.head_dim, SHAPE.kv_heads * SHAPE.head_dim);
    let spread = |columns: usize, gain: f32| gain / (columns as f32).sqrt();
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![SHAPE.vocab, h], 1.0),
        ("model.norm.weight".to_owned(), vec![h], 0.2),
        ("lm_head.weight".to_owned(), vec![SHAPE.vocab, h], spread(h, 2.5)),
    ];
    for layer in 0..SHAPE.layers {
        let mlp = SHAPE.intermediate;
        // Layers add small values to the residual stream, as in any model with this many layers.
        for (tensor, shape, spread) in [
            ("input_layernorm", vec![h], 0.2),
            ("post_attention_layernorm", vec![h], 0.2),
            ("self_attn.q_proj", vec![q, h], spread(h, 2.5)),
            ("self_attn.k_proj", vec![kv, h], spread(h, 2.5)),
            ("self_attn.v_proj", vec![kv, h], spread(h, 2.5)),
            ("self_attn.o_proj", vec![h, q], spread(q, 0.5)),
            ("mlp.gate_proj", vec![mlp, h], spread(h, 2.5)),
            ("mlp.up_proj", vec![mlp, h], spread(h, 2.5)),
            ("mlp.down_proj", vec![h, mlp], spread(mlp, 0.5)),
        ] {
            shapes.push((format!("model.layers.{layer}.{tensor}.weight"), shape, spread));
        }
    }
    shapes
}

fn bf16(
    rng: &mut impl Rng,
    name: &str,
    shape: &[usize],
    spread: f32,
    stored: &mut BTreeMap<String, Stored>,
) -> Vec<f32> {
    let centre = if shape.len() == 1 { 1.0 } else { 0.0 };
    let upper = |value: f32| value.to_bits() >> 16;
    let halves: Vec<u32> =
        (0..shape.iter().product()).map(|_| upper(centre + spread * rng.random_range(-1.0..1.0f32))).collect();
    let bytes = halves.iter().flat_map(|&half| (half as u16).to_le_bytes()).collect();
    stored.insert(name.to_owned(), (Dtype::BF16, shape.to_vec(), bytes));
    halves.iter().map(|half| f32::from_bits(half << 16)).collect()
}

/// Returns the value of an e4m3 byte (OCP 8-bit floating point, table 1): a bias of 7, subnormals below 2^-6.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (byte >> 3 & 15, f32::from(byte & 7) / 8.0);
    let magnitude = if exponent == 0 { mantissa / 64.0 } else { (1.0 + mantissa) * f32::from(exponent).exp2() / 128.0 };
    if byte >= 128 { -magnitude } else { magnitude }
}

fn write_shards(dir: &Path, stored: &BTreeMap<String, Stored>) {
    let (mut files, mut map) = (vec![Vec::new(); SHARDS], serde_json::Map::new());
    for (at, (name, tensor)) in stored.iter().enumerate() {
        let shard = at * SHARDS / stored.len();
        let mut file = String::new();
        write!(file, "model-{:05}-of-{SHARDS:05}.safetensors", shard + 1).expect("writing to a string succeeds");
        map.insert(name.clone(), json!(file));
        files[shard].push((file, name, tensor));
    }
    for shard in files {
        let views = shard.iter().map(|(_, name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("shapes and bytes agree"))
        });
        let bytes = safetensors::serialize(views, None).expect("the tensors serialize");
        std::fs::write(dir.join(&shard[0].0), bytes).expect("the folder is writable");
    }
    let index = json!({"metadata": {}, "weight_map": map});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).expect("the folder is writable");
}
