//! A Llama's weights in device memory, or one rank's part of them: where each lies, and how they get there from a checkpoint.

use std::ops::Range;

use surprisal_model::{Checkpoint, LlamaConfig};

use super::accelerator::{Accelerator, Arena, Region};
use super::shape::Shape;
use crate::backend::BackendError;
use crate::cpu::LoadError;

/// A product's matrix `[n][k]` bf16 and, in some models, its bias `[n]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    pub(super) weights: Region,
    pub(super) bias: Option<Region>,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// One decoder layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Region,
    pub(super) qkv: Linear,
    /// Of queries and keys, in some models.
    pub(super) head_norms: Option<(Region, Region)>,
    pub(super) output: Linear,
    pub(super) mlp_norm: Region,
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
}

/// All of a model's weights.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    pub(super) embedding: Region,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Region,
    pub(super) head: Linear,
    /// `[positions][head]` f32: half cosines, half sines.
    pub(super) cos_sin: Region,
}

impl Weights {
    pub(super) fn lay_out(arena: &mut Arena, shape: &Shape, config: &LlamaConfig) -> Self {
        let linear = |arena: &mut Arena, n: usize, k: usize, has_bias: bool| Linear {
            weights: arena.take(n * k * 2),
            bias: has_bias.then(|| arena.take(n * 2)),
            n,
            k,
        };
        let (hidden, mlp) = (shape.hidden, shape.mlp);
        // What ranks add up has its bias once.
        let is_first = shape.part.rank == 0;
        let embedding = arena.take(shape.vocab_rows * hidden * 2);
        let layers = (0..shape.layers).map(|_| Layer {
            attention_norm: arena.take(hidden * 2),
            qkv: linear(arena, shape.qkv(), hidden, config.qkv_bias),
            head_norms: config.qk_norm.then(|| (arena.take(shape.head * 2), arena.take(shape.head * 2))),
            output: linear(arena, hidden, shape.queries(), config.output_bias && is_first),
            mlp_norm: arena.take(hidden * 2),
            gate_up: linear(arena, 2 * mlp, hidden, config.mlp_bias),
            down: linear(arena, hidden, mlp, config.mlp_bias && is_first),
        });
        let layers = layers.collect();
        let norm = arena.take(hidden * 2);
        let head = match config.tie_word_embeddings {
            true => Linear { weights: embedding, bias: None, n: shape.vocab_rows, k: hidden },
            false => linear(arena, shape.vocab_rows, hidden, false),
        };
        let cos_sin = arena.take(shape.max_length * shape.head * 4);
        Self { embedding, layers, norm, head, cos_sin }
    }

    /// Fills the memory from a checkpoint.
    pub(super) fn load<A: Accelerator>(
        &self,
        device: &mut A,
        checkpoint: &Checkpoint,
        shape: &Shape,
    ) -> Result<(), LoadError> {
        let mut loader = Loader { device, checkpoint, shape };
        let config = checkpoint.config();
        loader.vocabulary("model.embed_tokens.weight", self.embedding)?;
        if !config.tie_word_embeddings {
            loader.vocabulary("lm_head.weight", self.head.weights)?;
        }
        loader.plain("model.norm.weight", &[shape.hidden], self.norm)?;
        for (index, layer) in self.layers.iter().enumerate() {
            loader.layer(index, layer)?;
        }
        let table = cos_sin(config, shape);
        Ok(loader.device.write(self.cos_sin, &table)?)
    }
}

/// Rotary cosines and sines of every position; dimensions that only pad do not turn.
fn cos_sin(config: &LlamaConfig, shape: &Shape) -> Vec<u8> {
    let frequencies = config.rope_scaling.frequencies(config.rope_theta, shape.head_dim);
    let scale = config.rope_scaling.attention_factor();
    let mut table = Vec::with_capacity(shape.max_length * shape.head * 4);
    for position in 0..shape.max_length {
        // Angles are rounded to f32, as checkpoints are trained with.
        let turns = frequencies.iter().map(|frequency| f64::from(position as f32 * frequency).sin_cos());
        let still = std::iter::repeat_n((0.0, 1.0), shape.head / 2 - frequencies.len());
        let turns: Vec<(f64, f64)> = turns.chain(still).collect();
        table.extend(turns.iter().flat_map(|&(_, cos)| ((cos * scale) as f32).to_le_bytes()));
        table.extend(turns.iter().flat_map(|&(sin, _)| ((sin * scale) as f32).to_le_bytes()));
    }
    table
}

struct Loader<'a, A> {
    device: &'a mut A,
    checkpoint: &'a Checkpoint,
    shape: &'a Shape,
}

impl<A: Accelerator> Loader<'_, A> {
    fn layer(&mut self, index: usize, layer: &Layer) -> Result<(), LoadError> {
        let name = |tensor: &str| format!("model.layers.{index}.{tensor}");
        let hidden = self.shape.hidden;
        self.plain(&name("input_layernorm.weight"), &[hidden], layer.attention_norm)?;
        self.plain(&name("post_attention_layernorm.weight"), &[hidden], layer.mlp_norm)?;
        self.attention(&name, layer)?;
        self.mlp(&name, layer)?;
        for (module, linear) in [("self_attn.o_proj", layer.output), ("mlp.down_proj", layer.down)] {
            if let Some(bias) = linear.bias {
                self.plain(&name(&format!("{module}.bias")), &[hidden], bias)?;
            }
        }
        Ok(())
    }

    fn attention(&mut self, name: &impl Fn(&str) -> String, layer: &Layer) -> Result<(), LoadError> {
        let &Shape { ref own, hidden, heads, kv_heads, head_dim, head, .. } = self.shape;
        let LlamaConfig { heads: all, kv_heads: all_kv, .. } = *self.checkpoint.config();
        let dimensions = |heads: &Range<usize>| heads.start * head_dim..heads.end * head_dim;
        let keys = || (all_kv * head_dim, dimensions(&own.kv_heads), kv_heads);
        let queries = (all * head_dim, dimensions(&own.heads), heads);
        let mut first = 0;
        for (module, (rows, own, count)) in [("q_proj", queries.clone()), ("k_proj", keys()), ("v_proj", keys())] {
            let part = |region: Region, row: usize| region.part(first * head * row, count * head * row);
            let tensor = name(&format!("self_attn.{module}.weight"));
            let to = part(layer.qkv.weights, hidden * 2)?;
            self.heads(&tensor, &[rows, hidden], [own.clone(), 0..hidden], hidden, to)?;
            if let Some(bias) = layer.qkv.bias {
                self.heads(&name(&format!("self_attn.{module}.bias")), &[rows], [0..1, own], 1, part(bias, 2)?)?;
            }
            first += count;
        }
        // Its columns are heads: a row of it is so many heads of rows of one.
        let (columns, own, _) = queries;
        let tensor = name("self_attn.o_proj.weight");
        self.heads(&tensor, &[hidden, columns], [0..hidden, own], 1, layer.output.weights)?;
        if let Some((query, key)) = layer.head_norms {
            self.head_norm(&name("self_attn.q_norm.weight"), query)?;
            self.head_norm(&name("self_attn.k_norm.weight"), key)?;
        }
        Ok(())
    }

    fn mlp(&mut self, name: &impl Fn(&str) -> String, layer: &Layer) -> Result<(), LoadError> {
        let (hidden, mlp) = (self.shape.hidden, self.checkpoint.config().intermediate_size);
        let own = || self.shape.own.mlp.clone();
        let half = |region: Region, second: usize| region.slice(second, 2);
        for (second, module) in ["gate_proj", "up_proj"].into_iter().enumerate() {
            let tensor = name(&format!("mlp.{module}.weight"));
            self.part(&tensor, &[mlp, hidden], [own(), 0..hidden], half(layer.gate_up.weights, second)?)?;
            if let Some(bias) = layer.gate_up.bias {
                self.part(&name(&format!("mlp.{module}.bias")), &[mlp], [0..1, own()], half(bias, second)?)?;
            }
        }
        let (tensor, to) = (name("mlp.down_proj.weight"), layer.down.weights);
        let bytes = self.checkpoint.part_bf16(&tensor, &[hidden, mlp], [0..hidden, own()])?;
        if own().len() == self.shape.mlp {
            return self.fill(to, &bytes);
        }
        self.fill(to, &widened(&bytes, own().len() * 2, self.shape.mlp * 2))
    }

    /// A tensor as it is.
    fn plain(&mut self, name: &str, shape: &[usize], to: Region) -> Result<(), LoadError> {
        let bytes = self.checkpoint.tensor_bf16(name, shape)?;
        Ok(self.device.write(to, &bytes)?)
    }

    /// Some rows and columns of a tensor, and zeros after them.
    fn part(&mut self, name: &str, shape: &[usize], own: [Range<usize>; 2], to: Region) -> Result<(), LoadError> {
        let bytes = self.checkpoint.part_bf16(name, shape, own)?;
        self.fill(to, &bytes)
    }

    fn fill(&mut self, to: Region, bytes: &[u8]) -> Result<(), LoadError> {
        self.device.write(to, bytes)?;
        let padding = to.bytes().saturating_sub(bytes.len());
        Ok(self.device.write(to.part(bytes.len(), padding)?, &vec![0; padding])?)
    }

    /// A row for each of this rank's tokens, and zeros for the rows that pad.
    fn vocabulary(&mut self, name: &str, to: Region) -> Result<(), LoadError> {
        let &Shape { ref own, vocab, hidden, .. } = self.shape;
        self.part(name, &[vocab, hidden], [own.vocab.clone(), 0..hidden], to)
    }

    /// A part of a tensor that is a list of heads, each dimension of them `row` values; with zeros where heads are padded.
    fn heads(
        &mut self,
        name: &str,
        shape: &[usize],
        own: [Range<usize>; 2],
        row: usize,
        to: Region,
    ) -> Result<(), LoadError> {
        let bytes = self.checkpoint.part_bf16(name, shape, own)?;
        if self.shape.head == self.shape.head_dim {
            return self.fill(to, &bytes);
        }
        self.fill(to, &pad(self.shape, &bytes, row * 2))
    }

    /// A norm's weights. Over a padded head the mean is smaller than over the real one: the weights make up for it.
    fn head_norm(&mut self, name: &str, to: Region) -> Result<(), LoadError> {
        if self.shape.head == self.shape.head_dim {
            return self.plain(name, &[self.shape.head_dim], to);
        }
        let values = self.checkpoint.tensor_f32(name, &[self.shape.head_dim])?;
        let bytes: Vec<u8> = values.iter().flat_map(|x| bf16(x * self.shape.filled().sqrt()).to_le_bytes()).collect();
        Ok(self.device.write(to, &pad(self.shape, &bytes, 2))?)
    }
}

/// Heads of dimensions of `row` bytes, each dimension in its place among zeros.
fn pad(shape: &Shape, bytes: &[u8], row: usize) -> Vec<u8> {
    let heads = bytes.len() / (shape.head_dim * row);
    let mut padded = vec![0; heads * shape.head * row];
    for (from, to) in bytes.chunks_exact(shape.head_dim * row).zip(padded.chunks_exact_mut(shape.head * row)) {
        for (dimension, from) in from.chunks_exact(row).enumerate() {
            to[shape.place(dimension) * row..][..row].copy_from_slice(from);
        }
    }
    padded
}

/// Rows with zeros after each.
fn widened(bytes: &[u8], row: usize, wide: usize) -> Vec<u8> {
    let mut rows = vec![0; bytes.len().checked_div(row).unwrap_or(0) * wide];
    for (from, to) in bytes.chunks_exact(row.max(1)).zip(rows.chunks_exact_mut(wide)) {
        to[..row].copy_from_slice(from);
    }
    rows
}

/// Rounded to nearest, ties to even; finite values only.
pub(super) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The bytes that integers have on the device.
pub(super) fn int_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Where `count` integers from the `at`th on lie.
pub(super) fn ints(region: Region, at: usize, count: usize) -> Result<Region, BackendError> {
    region.part(at * 4, count * 4)
}
