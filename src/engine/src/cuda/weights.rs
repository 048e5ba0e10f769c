//! A Llama's weights in device memory, or one rank's part of them: where each lies, and how they get there from a checkpoint.

use std::borrow::Cow;
use std::ops::Range;

use surprisal_model::LlamaConfig;

use super::accelerator::{Accelerator, Arena, Region};
use super::shape::Shape;
use super::source::Source;
use crate::backend::BackendError;
use crate::cpu::LoadError;

/// A product's matrix `[n][k]` and, in some models, its bias `[n]` bf16.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    /// bf16, or with scales bytes of e4m3.
    pub(super) weights: Region,
    /// `[n]` f32.
    pub(super) scales: Option<Region>,
    pub(super) bias: Option<Region>,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// A layer's matrices, by what is multiplied together.
const QKV: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
const OUTPUT: &str = "self_attn.o_proj";
const GATE_UP: [&str; 2] = ["mlp.gate_proj", "mlp.up_proj"];
const DOWN: &str = "mlp.down_proj";

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
    pub(super) fn lay_out(arena: &mut Arena, shape: &Shape, source: &impl Source) -> Self {
        let config = source.config();
        let linear = |arena: &mut Arena, n: usize, k: usize, has_bias: bool, fp8: bool| Linear {
            weights: arena.take(n * k * if fp8 { 1 } else { 2 }),
            scales: fp8.then(|| arena.take(n * 4)),
            bias: has_bias.then(|| arena.take(n * 2)),
            n,
            k,
        };
        // What is multiplied together is of one type.
        let fp8 = |index: usize, modules: &[&str]| {
            let is_fp8 = |module: &&str| source.is_fp8(&format!("model.layers.{index}.{module}.weight"));
            shape.fp8.is_some() && modules.iter().any(is_fp8)
        };
        let (hidden, mlp) = (shape.hidden, shape.mlp);
        // What ranks add up has its bias once.
        let is_first = shape.part.rank == 0;
        let embedding = arena.take(shape.vocab_rows * hidden * 2);
        let layers = (0..shape.layers).map(|index| Layer {
            attention_norm: arena.take(hidden * 2),
            qkv: linear(arena, shape.qkv(), hidden, config.qkv_bias, fp8(index, &QKV)),
            head_norms: config.qk_norm.then(|| (arena.take(shape.head * 2), arena.take(shape.head * 2))),
            output: linear(arena, hidden, shape.queries(), config.output_bias && is_first, fp8(index, &[OUTPUT])),
            mlp_norm: arena.take(hidden * 2),
            gate_up: linear(arena, 2 * mlp, hidden, config.mlp_bias, fp8(index, &GATE_UP)),
            down: linear(arena, hidden, mlp, config.mlp_bias && is_first, fp8(index, &[DOWN])),
        });
        let layers = layers.collect();
        let norm = arena.take(hidden * 2);
        let head = match config.tie_word_embeddings {
            true => Linear { weights: embedding, scales: None, bias: None, n: shape.vocab_rows, k: hidden },
            false => linear(arena, shape.vocab_rows, hidden, false, false),
        };
        let cos_sin = arena.take(shape.max_length * shape.head * 4);
        Self { embedding, layers, norm, head, cos_sin }
    }

    /// Fills the memory from a checkpoint.
    pub(super) fn load<A: Accelerator>(
        &self,
        device: &mut A,
        source: &impl Source,
        shape: &Shape,
    ) -> Result<(), LoadError> {
        let mut loader = Loader { device, source, shape };
        let (hidden, config) = (shape.hidden, source.config());
        loader.vocabulary("model.embed_tokens.weight", self.embedding)?;
        if !config.tie_word_embeddings {
            loader.vocabulary("lm_head.weight", self.head.weights)?;
        }
        loader.plain("model.norm.weight", &[hidden], self.norm)?;
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

/// Which side of a matrix is a list of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heads {
    None,
    Rows,
    Columns,
}

/// Some rows and columns of a matrix, and how many it has of both.
struct Part {
    of: [usize; 2],
    own: [Range<usize>; 2],
}

struct Loader<'a, A, S> {
    device: &'a mut A,
    source: &'a S,
    shape: &'a Shape,
}

impl<A: Accelerator, S: Source> Loader<'_, A, S> {
    fn layer(&mut self, index: usize, layer: &Layer) -> Result<(), LoadError> {
        let name = |tensor: &str| format!("model.layers.{index}.{tensor}");
        let &Shape { ref own, hidden, mlp, heads, kv_heads, head_dim, head, .. } = self.shape;
        let LlamaConfig { heads: all, kv_heads: all_kv, intermediate_size, .. } = *self.source.config();
        let dimensions = |heads: &Range<usize>| heads.start * head_dim..heads.end * head_dim;
        let rows = |of: usize, own: Range<usize>| Part { of: [of, hidden], own: [own, 0..hidden] };
        let columns = |of: usize, own: Range<usize>| Part { of: [hidden, of], own: [0..hidden, own] };
        self.plain(&name("input_layernorm.weight"), &[hidden], layer.attention_norm)?;
        self.plain(&name("post_attention_layernorm.weight"), &[hidden], layer.mlp_norm)?;
        let mut first = 0;
        let (queries, keys) = ((all, &own.heads, heads), (all_kv, &own.kv_heads, kv_heads));
        for (module, (of, own, count)) in QKV.into_iter().zip([queries, keys, keys]) {
            let part = rows(of * head_dim, dimensions(own));
            self.module(&name(module), part, &layer.qkv, first..first + count * head, Heads::Rows)?;
            first += count * head;
        }
        let part = columns(all * head_dim, dimensions(&own.heads));
        self.module(&name(OUTPUT), part, &layer.output, 0..hidden, Heads::Columns)?;
        if let Some((query, key)) = layer.head_norms {
            self.head_norm(&name("self_attn.q_norm.weight"), query)?;
            self.head_norm(&name("self_attn.k_norm.weight"), key)?;
        }
        for (half, module) in GATE_UP.into_iter().enumerate() {
            let part = rows(intermediate_size, own.mlp.clone());
            self.module(&name(module), part, &layer.gate_up, half * mlp..(half + 1) * mlp, Heads::None)?;
        }
        let part = columns(intermediate_size, own.mlp.clone());
        self.module(&name(DOWN), part, &layer.down, 0..hidden, Heads::None)
    }

    /// A part of a module's matrix and bias, into some rows of a product's; zeros fill what it leaves of them.
    fn module(
        &mut self,
        name: &str,
        Part { of, own }: Part,
        to: &Linear,
        place: Range<usize>,
        heads: Heads,
    ) -> Result<(), LoadError> {
        let weight = format!("{name}.weight");
        let columns = own[1].len();
        let place = |region: Region, row: usize| region.part(place.start * row, place.len() * row);
        let value = if to.scales.is_some() { 1 } else { 2 };
        let (bytes, scales) = match to.scales {
            Some(_) => self.source.fp8_part(&weight, of, own.clone())?,
            None => (self.source.bf16_part(&weight, &of, own.clone())?, Vec::new()),
        };
        let to_weights = place(to.weights, to.k * value)?;
        match heads {
            Heads::None if columns != to.k => {
                self.fill(to_weights, &widened(&bytes, columns * value, to.k * value))?;
            }
            _ => self.put(to_weights, &bytes, heads, if heads == Heads::Rows { columns * value } else { value })?,
        }
        let of_rows = if heads == Heads::Rows { heads } else { Heads::None };
        if let Some(region) = to.scales {
            let bytes: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            self.put(place(region, 4)?, &bytes, of_rows, 4)?;
        }
        if let Some(region) = to.bias {
            let bytes = self.source.bf16_part(&format!("{name}.bias"), &of[..1], [0..1, own[0].clone()])?;
            self.put(place(region, 2)?, &bytes, of_rows, 2)?;
        }
        Ok(())
    }

    /// Bytes as they are, or if they are heads, each dimension of them so many bytes, among the zeros that pad them.
    fn put(&mut self, to: Region, bytes: &[u8], heads: Heads, dimension: usize) -> Result<(), LoadError> {
        let is_padded = heads != Heads::None && self.shape.head != self.shape.head_dim;
        let bytes = if is_padded { Cow::Owned(pad(self.shape, bytes, dimension)) } else { Cow::Borrowed(bytes) };
        self.fill(to, &bytes)
    }

    /// Bytes, and zeros after them.
    fn fill(&mut self, to: Region, bytes: &[u8]) -> Result<(), LoadError> {
        self.device.write(to, bytes)?;
        let padding = to.bytes().saturating_sub(bytes.len());
        Ok(self.device.write(to.part(bytes.len(), padding)?, &vec![0; padding])?)
    }

    /// A tensor as it is.
    fn plain(&mut self, name: &str, shape: &[usize], to: Region) -> Result<(), LoadError> {
        let bytes = self.source.bf16(name, shape)?;
        Ok(self.device.write(to, &bytes)?)
    }

    /// A row for each of this rank's tokens, and zeros for the rows that pad.
    fn vocabulary(&mut self, name: &str, to: Region) -> Result<(), LoadError> {
        let &Shape { ref own, vocab, hidden, .. } = self.shape;
        let bytes = self.source.bf16_part(name, &[vocab, hidden], [own.vocab.clone(), 0..hidden])?;
        self.fill(to, &bytes)
    }

    /// A norm's weights. Over a padded head the mean is smaller than over the real one: the weights make up for it.
    fn head_norm(&mut self, name: &str, to: Region) -> Result<(), LoadError> {
        if self.shape.head == self.shape.head_dim {
            return self.plain(name, &[self.shape.head_dim], to);
        }
        let values = self.source.f32(name, &[self.shape.head_dim])?;
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
