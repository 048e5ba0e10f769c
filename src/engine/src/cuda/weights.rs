//! `DeviceWeights`: the locations in device memory of a Llama model's weights, or of one rank's slice of them.

use super::memory::{Arena, DeviceRegion};
use super::model_shape::ModelShape;
use super::weight_source::WeightSource;

/// A weight matrix `[n][k]` and, in some models, its bias `[n]` in bf16.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceLinear {
    /// bf16, or e4m3 if there are scales.
    pub(super) weights: DeviceRegion,
    /// `[n]` f32; `None` if the weights are bf16.
    pub(super) scales: Option<DeviceRegion>,
    pub(super) bias: Option<DeviceRegion>,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// The linear modules of a layer. The matrices of modules in the same array are stored as one matrix and multiplied
/// together.
pub(super) const QKV: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
pub(super) const OUTPUT: &str = "self_attn.o_proj";
pub(super) const GATE_UP: [&str; 2] = ["mlp.gate_proj", "mlp.up_proj"];
pub(super) const DOWN: &str = "mlp.down_proj";

/// The weights of one decoder layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceLayer {
    pub(super) attention_norm: DeviceRegion,
    pub(super) qkv: DeviceLinear,
    /// The norms of queries and keys; `None` if the model does not normalize them.
    pub(super) head_norms: Option<(DeviceRegion, DeviceRegion)>,
    pub(super) output: DeviceLinear,
    pub(super) mlp_norm: DeviceRegion,
    pub(super) gate_up: DeviceLinear,
    pub(super) down: DeviceLinear,
}

/// All weights of a model.
#[derive(Clone, Debug)]
pub(super) struct DeviceWeights {
    pub(super) embedding: DeviceRegion,
    pub(super) layers: Vec<DeviceLayer>,
    pub(super) norm: DeviceRegion,
    pub(super) head: DeviceLinear,
    /// `[positions][head]` f32: cosines in the first half of each row, sines in the second.
    pub(super) cos_sin: DeviceRegion,
}

impl DeviceWeights {
    /// Lays out the weights in memory.
    pub(super) fn lay_out(arena: &mut Arena, shape: &ModelShape, source: &impl WeightSource) -> Self {
        let config = source.config();
        let linear = |arena: &mut Arena, n: usize, k: usize, has_bias: bool, fp8: bool| DeviceLinear {
            weights: arena.take(n * k * if fp8 { 1 } else { 2 }),
            scales: fp8.then(|| arena.take(n * 4)),
            bias: has_bias.then(|| arena.take(n * 2)),
            n,
            k,
        };
        // Matrices that are multiplied together have the same type.
        let fp8 = |index: usize, modules: &[&str]| {
            let is_fp8 = |module: &&str| source.is_fp8(&format!("model.layers.{index}.{module}.weight"));
            shape.fp8.is_some() && modules.iter().any(is_fp8)
        };
        let (hidden, mlp) = (shape.hidden, shape.mlp);
        // Only one rank adds the bias of a sum over ranks.
        let is_first = shape.slice.rank == 0;
        let embedding = arena.take(shape.vocab_rows * hidden * 2);
        let layers = (0..shape.layers).map(|index| DeviceLayer {
            attention_norm: arena.take(hidden * 2),
            qkv: linear(arena, shape.qkv_columns(), hidden, config.qkv_bias, fp8(index, &QKV)),
            head_norms: config
                .qk_norm
                .then(|| (arena.take(shape.padded_head_dim * 2), arena.take(shape.padded_head_dim * 2))),
            output: linear(arena, hidden, shape.query_columns(), config.output_bias && is_first, fp8(index, &[OUTPUT])),
            mlp_norm: arena.take(hidden * 2),
            gate_up: linear(arena, 2 * mlp, hidden, config.mlp_bias, fp8(index, &GATE_UP)),
            down: linear(arena, hidden, mlp, config.mlp_bias && is_first, fp8(index, &[DOWN])),
        });
        let layers = layers.collect();
        let norm = arena.take(hidden * 2);
        let head = match config.tie_word_embeddings {
            true => DeviceLinear { weights: embedding, scales: None, bias: None, n: shape.vocab_rows, k: hidden },
            false => linear(arena, shape.vocab_rows, hidden, false, false),
        };
        let cos_sin = arena.take(shape.max_length * shape.padded_head_dim * 4);
        Self { embedding, layers, norm, head, cos_sin }
    }
}
