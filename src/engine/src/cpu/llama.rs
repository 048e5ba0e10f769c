//! A Llama's weights, packed for the CPU's products, and its forward pass.

use rayon::prelude::*;
use surprisal_model::{Checkpoint, LlamaConfig};

use super::attention::{self, HeadNorms, Inputs, Shape};
use super::kv::LayerKv;
use super::math;
use super::matrix::{Compute, Write, multiply};
use super::panels::{PANEL, Panels, Row, panels_for};
use super::rope::{Angles, Rope};
use super::weights::{WeightType, Weights};
use crate::backend::ForwardBatch;

/// One decoder layer.
#[derive(Debug)]
struct Layer {
    attention_norm: Vec<Row>,
    qkv: Linear,
    head_norms: Option<HeadNorms>,
    output: Linear,
    mlp_norm: Vec<Row>,
    gate_up: Linear,
    down: Linear,
}

/// A product and, in some models, a bias.
#[derive(Debug)]
struct Linear {
    weights: Weights,
    bias: Option<Vec<Row>>,
}

impl Linear {
    fn apply(&self, compute: Compute, x: &Panels, out: &mut Panels, write: Write) {
        multiply(compute, x, &self.weights, out, write);
        if let Some(bias) = &self.bias {
            math::add_bias(out, bias);
        }
    }
}

/// The whole model.
#[derive(Debug)]
pub(crate) struct Llama {
    compute: Compute,
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
    /// Reads and packs all tensors.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        kind: WeightType,
        compute: Compute,
    ) -> Result<Self, surprisal_model::Error> {
        let config = checkpoint.config();
        // Before memory is taken for a configuration that its tensors do not bear out.
        checkpoint.check()?;
        let loader = Loader { checkpoint, config, kind };
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let embedding = loader.plain("model.embed_tokens.weight", vocab, hidden)?;
        let layers = (0..config.layers).map(|i| loader.layer(i)).collect::<Result<_, _>>()?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => Some(loader.plain("lm_head.weight", vocab, hidden)?),
        };
        Ok(Self {
            compute,
            hidden_size: hidden,
            eps: config.rms_norm_eps,
            mlp_panels: panels_for(config.intermediate_size),
            shape: shape(config),
            rope: Rope::new(config),
            embedding,
            layers,
            norm: loader.vector("model.norm.weight", hidden)?,
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
        let angles = self.rope.angles(&batch.chunks);
        for (layer, kv) in self.layers.iter().zip(kv) {
            self.attention(layer, batch, &angles, kv, &mut x);
            self.mlp(layer, &mut x);
        }
        x
    }

    /// The last norm: from the residual stream to what the head reads.
    pub(crate) fn last_norm(&self, x: &Panels) -> Panels {
        math::rms_norm(self.compute.arch, x, self.hidden_size, self.eps, &self.norm)
    }

    fn embed(&self, tokens: &[u32]) -> Panels {
        let mut x = Panels::zeros(tokens.len(), self.embedding.depth_panels());
        x.panels_mut().enumerate().for_each(|(panel, rows)| {
            for (row, &token) in rows.iter_mut().zip(tokens) {
                *row = self.embedding.output_panel(token as usize, panel);
            }
        });
        x
    }

    fn attention(&self, layer: &Layer, batch: &ForwardBatch, angles: &Angles, kv: &mut LayerKv, x: &mut Panels) {
        let normed = math::rms_norm(self.compute.arch, x, self.hidden_size, self.eps, &layer.attention_norm);
        let mut qkv = Panels::zeros(x.rows(), layer.qkv.weights.panels());
        layer.qkv.apply(self.compute, &normed, &mut qkv, Write::Set);
        let norms = layer.head_norms.as_ref();
        let inputs = Inputs { shape: &self.shape, norms, angles, qkv: &qkv, chunks: &batch.chunks };
        attention::write_kv(self.compute.arch, &inputs, kv);
        let attended = attention::attend(self.compute.arch, &inputs, kv);
        layer.output.apply(self.compute, &attended, x, Write::Add);
    }

    fn mlp(&self, layer: &Layer, x: &mut Panels) {
        let normed = math::rms_norm(self.compute.arch, x, self.hidden_size, self.eps, &layer.mlp_norm);
        let mut gate_up = Panels::zeros(x.rows(), layer.gate_up.weights.panels());
        layer.gate_up.apply(self.compute, &normed, &mut gate_up, Write::Set);
        let (gate, up) = gate_up.split_mut(self.mlp_panels);
        math::silu_mul(self.compute.arch, gate, up);
        gate_up.truncate(self.mlp_panels);
        layer.down.apply(self.compute, &gate_up, x, Write::Add);
    }
}

/// The attention's shape as a checkpoint's configuration gives it.
fn shape(config: &LlamaConfig) -> Shape {
    Shape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        head_panels: panels_for(config.head_dim),
        window: config.sliding_window.unwrap_or(usize::MAX),
        eps: config.rms_norm_eps,
    }
}

/// Reads tensors and packs them, each head padded to whole panels.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a LlamaConfig,
    kind: WeightType,
}

impl Loader<'_> {
    fn layer(&self, index: usize) -> Result<Layer, surprisal_model::Error> {
        let config = self.config;
        let name = |tensor: &str| format!("model.layers.{index}.{tensor}");
        let (hidden, mlp, head_dim) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let padded = panels_for(head_dim) * PANEL;
        let pad = move |i: usize| i / head_dim * padded + i % head_dim;
        let (queries, keys) = (config.heads * head_dim, config.kv_heads * head_dim);

        let qkv = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)];
        let qkv = qkv.map(|(tensor, outputs)| (name(&format!("self_attn.{tensor}")), outputs));
        let mut output = Weights::zeros(self.kind, hidden, config.heads * padded);
        self.pack(&name("self_attn.o_proj.weight"), hidden, queries, &mut output, |n| n, pad)?;
        let gate_up = ["gate_proj", "up_proj"].map(|tensor| (name(&format!("mlp.{tensor}")), mlp));
        let bias = |tensor: &str, has: bool| has.then(|| self.vector(&name(tensor), hidden)).transpose();
        let head_norm = |tensor: &str| self.vector(&name(tensor), head_dim);
        let head_norms = match config.qk_norm {
            true => Some(HeadNorms {
                query: head_norm("self_attn.q_norm.weight")?,
                key: head_norm("self_attn.k_norm.weight")?,
            }),
            false => None,
        };
        Ok(Layer {
            attention_norm: self.vector(&name("input_layernorm.weight"), hidden)?,
            qkv: self.fused(&qkv, hidden, config.qkv_bias, pad)?,
            head_norms,
            output: Linear { weights: output, bias: bias("self_attn.o_proj.bias", config.output_bias)? },
            mlp_norm: self.vector(&name("post_attention_layernorm.weight"), hidden)?,
            gate_up: self.fused(&gate_up, hidden, config.mlp_bias, |n| n)?,
            down: Linear {
                weights: self.plain(&name("mlp.down_proj.weight"), hidden, mlp)?,
                bias: bias("mlp.down_proj.bias", config.mlp_bias)?,
            },
        })
    }

    /// Several matrices of one input as one product: each from a panel of its own on, its outputs where `place` puts them.
    fn fused(
        &self,
        parts: &[(String, usize)],
        depth: usize,
        has_bias: bool,
        place: impl Fn(usize) -> usize + Copy,
    ) -> Result<Linear, surprisal_model::Error> {
        let panels = |outputs: usize| panels_for(place(outputs - 1) + 1);
        let total: usize = parts.iter().map(|&(_, outputs)| panels(outputs)).sum();
        let mut weights = Weights::zeros(self.kind, total * PANEL, depth);
        let mut bias = vec![[0.0; PANEL]; total];
        let mut first = 0;
        for (name, outputs) in parts {
            self.pack(&format!("{name}.weight"), *outputs, depth, &mut weights, |n| first + place(n), |k| k)?;
            if has_bias {
                for (n, value) in self.read(&format!("{name}.bias"), &[*outputs])?.into_iter().enumerate() {
                    bias.as_flattened_mut()[first + place(n)] = value;
                }
            }
            first += panels(*outputs) * PANEL;
        }
        Ok(Linear { weights, bias: has_bias.then_some(bias) })
    }

    fn plain(&self, name: &str, outputs: usize, depth: usize) -> Result<Weights, surprisal_model::Error> {
        let mut weights = Weights::zeros(self.kind, outputs, depth);
        self.pack(name, outputs, depth, &mut weights, |n| n, |k| k)?;
        Ok(weights)
    }

    /// Packs a matrix as it is read: its row `i` becomes output `output(i)`, its column `j` depth `input(j)`.
    fn pack(
        &self,
        name: &str,
        outputs: usize,
        depth: usize,
        weights: &mut Weights,
        output: impl Fn(usize) -> usize,
        input: impl Fn(usize) -> usize + Copy,
    ) -> Result<(), surprisal_model::Error> {
        self.checkpoint.read_slabs(name, &[outputs, depth], |first, rows| {
            weights.set_rows(rows, depth, |n| output(first + n), input);
        })
    }

    /// A vector in panels, padded with zeros.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<Row>, surprisal_model::Error> {
        let values = self.read(name, &[len])?;
        let mut rows = vec![[0.0; PANEL]; panels_for(len)];
        rows.as_flattened_mut()[..len].copy_from_slice(&values);
        Ok(rows)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, surprisal_model::Error> {
        self.checkpoint.tensor_f32(name, shape)
    }
}
