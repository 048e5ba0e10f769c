//! A Llama's weights, packed for the CPU's products, and its forward pass.

use pulp::Arch;
use surprisal_model::{Checkpoint, LlamaConfig};

use super::attention::{self, Shape};
use super::kv::LayerKv;
use super::math;
use super::matrix::{PANEL, Panels, Row, Weights, Write, multiply, panels_for};
use super::rope::Rope;
use crate::backend::ForwardBatch;

/// One decoder layer.
#[derive(Debug)]
struct Layer {
    attention_norm: Vec<Row>,
    qkv: Weights,
    output: Weights,
    mlp_norm: Vec<Row>,
    gate_up: Weights,
    down: Weights,
}

/// The whole model.
#[derive(Debug)]
pub(crate) struct Llama {
    arch: Arch,
    hidden_size: usize,
    eps: f64,
    mlp_panels: usize,
    shape: Shape,
    rope: Rope,
    embedding: Weights,
    layers: Vec<Layer>,
    norm: Vec<Row>,
    /// `None` when the embedding serves as the head.
    head: Option<Weights>,
}

impl Llama {
    /// Reads and packs all tensors; positions below `max_length` can be computed.
    pub(crate) fn load(checkpoint: &Checkpoint, max_length: usize) -> Result<Self, surprisal_model::Error> {
        let config = checkpoint.config();
        let shape = shape(config);
        let loader = Loader { checkpoint, shape };
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        let layers = (0..config.layers).map(|i| loader.layer(i, hidden, mlp)).collect::<Result<_, _>>()?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => Some(loader.plain("lm_head.weight", config.vocab_size, hidden)?),
        };
        Ok(Self {
            arch: Arch::new(),
            hidden_size: hidden,
            eps: config.rms_norm_eps,
            mlp_panels: panels_for(mlp),
            shape,
            rope: Rope::new(config.head_dim, config.rope_theta, max_length),
            embedding: loader.plain("model.embed_tokens.weight", config.vocab_size, hidden)?,
            layers,
            norm: loader.norm("model.norm.weight", hidden)?,
            head,
        })
    }

    /// Empty key-value memory for one layer.
    pub(crate) fn layer_kv(&self, blocks: usize) -> LayerKv {
        LayerKv::new(blocks, self.shape.kv_heads, self.shape.head_panels)
    }

    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    pub(crate) fn head(&self) -> &Weights {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Runs the batch's tokens through all layers; returns the residual stream, before the last norm.
    pub(crate) fn forward(&self, batch: &ForwardBatch, kv: &mut [LayerKv]) -> Panels {
        let mut x = self.embed(&batch.tokens);
        for (layer, kv) in self.layers.iter().zip(kv) {
            self.attention(layer, batch, kv, &mut x);
            self.mlp(layer, &mut x);
        }
        x
    }

    /// The last norm: from the residual stream to what the head reads.
    pub(crate) fn last_norm(&self, x: &Panels) -> Panels {
        math::rms_norm(self.arch, x, self.hidden_size, self.eps, &self.norm)
    }

    fn embed(&self, tokens: &[u32]) -> Panels {
        let mut x = Panels::zeros(tokens.len(), self.embedding.depth_panels());
        for (row, &token) in tokens.iter().enumerate() {
            for (panel, values) in self.embedding.output_row(token as usize).enumerate() {
                *x.row_mut(panel, row) = values;
            }
        }
        x
    }

    fn attention(&self, layer: &Layer, batch: &ForwardBatch, kv: &mut LayerKv, x: &mut Panels) {
        let normed = math::rms_norm(self.arch, x, self.hidden_size, self.eps, &layer.attention_norm);
        let mut qkv = Panels::zeros(x.rows(), layer.qkv.panels());
        multiply(self.arch, &normed, &layer.qkv, &mut qkv, Write::Set);
        attention::write_kv(&self.shape, &self.rope, &qkv, &batch.chunks, kv);
        let attended = attention::attend(self.arch, &self.shape, &self.rope, &qkv, &batch.chunks, kv);
        multiply(self.arch, &attended, &layer.output, x, Write::Add);
    }

    fn mlp(&self, layer: &Layer, x: &mut Panels) {
        let normed = math::rms_norm(self.arch, x, self.hidden_size, self.eps, &layer.mlp_norm);
        let mut gate_up = Panels::zeros(x.rows(), layer.gate_up.panels());
        multiply(self.arch, &normed, &layer.gate_up, &mut gate_up, Write::Set);
        let (gate, up) = gate_up.split_mut(self.mlp_panels);
        math::silu_mul(self.arch, gate, up);
        gate_up.truncate(self.mlp_panels);
        multiply(self.arch, &gate_up, &layer.down, x, Write::Add);
    }
}

/// The attention's shape as a checkpoint's configuration gives it.
pub(crate) fn shape(config: &LlamaConfig) -> Shape {
    Shape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        head_panels: panels_for(config.head_dim),
    }
}

/// Reads tensors and packs them, each head padded to whole panels.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    shape: Shape,
}

impl Loader<'_> {
    fn layer(&self, index: usize, hidden: usize, mlp: usize) -> Result<Layer, surprisal_model::Error> {
        let name = |tensor: &str| format!("model.layers.{index}.{tensor}.weight");
        let Shape { heads, kv_heads, head_dim, head_panels } = self.shape;
        let padded = head_panels * PANEL;
        let pad = move |i: usize| i / head_dim * padded + i % head_dim;

        let mut qkv = Weights::zeros((heads + 2 * kv_heads) * padded, hidden);
        let mut first = 0;
        for (tensor, count) in [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)] {
            let rows = self.read(&name(&format!("self_attn.{tensor}")), &[count * head_dim, hidden])?;
            qkv.set_rows(&rows, hidden, |n| first + pad(n), |k| k);
            first += count * padded;
        }
        let mut output = Weights::zeros(hidden, heads * padded);
        let rows = self.read(&name("self_attn.o_proj"), &[hidden, heads * head_dim])?;
        output.set_rows(&rows, heads * head_dim, |n| n, pad);

        let mut gate_up = Weights::zeros(2 * panels_for(mlp) * PANEL, hidden);
        for (tensor, first) in [("gate_proj", 0), ("up_proj", panels_for(mlp) * PANEL)] {
            let rows = self.read(&name(&format!("mlp.{tensor}")), &[mlp, hidden])?;
            gate_up.set_rows(&rows, hidden, |n| first + n, |k| k);
        }
        Ok(Layer {
            attention_norm: self.norm(&name("input_layernorm"), hidden)?,
            qkv,
            output,
            mlp_norm: self.norm(&name("post_attention_layernorm"), hidden)?,
            gate_up,
            down: self.plain(&name("mlp.down_proj"), hidden, mlp)?,
        })
    }

    fn plain(&self, name: &str, outputs: usize, depth: usize) -> Result<Weights, surprisal_model::Error> {
        let mut weights = Weights::zeros(outputs, depth);
        weights.set_rows(&self.read(name, &[outputs, depth])?, depth, |n| n, |k| k);
        Ok(weights)
    }

    fn norm(&self, name: &str, hidden: usize) -> Result<Vec<Row>, surprisal_model::Error> {
        let mut rows = vec![[0.0; PANEL]; panels_for(hidden)];
        rows.as_flattened_mut()[..hidden].copy_from_slice(&self.read(name, &[hidden])?);
        Ok(rows)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, surprisal_model::Error> {
        self.checkpoint.tensor_f32(name, shape)
    }
}
