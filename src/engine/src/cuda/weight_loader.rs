//! Loader of a Llama model's weights, or of one rank's slice of them, into device memory.

use std::borrow::Cow;
use std::ops::Range;

use surprisal_model::LlamaConfig;

use super::accelerator::Accelerator;
use super::memory::DeviceRegion;
use super::model_shape::ModelShape;
use super::weight_source::WeightSource;
use super::weights::{DOWN, DeviceLayer, DeviceLinear, DeviceWeights, GATE_UP, OUTPUT, QKV};
use crate::load_error::LoadError;

/// Fills the memory of `weights` with the tensors of `source`.
pub(super) fn load<A: Accelerator>(
    weights: &DeviceWeights,
    device: &mut A,
    source: &impl WeightSource,
    shape: &ModelShape,
) -> Result<(), LoadError> {
    let mut loader = DeviceWeightLoader { device, source, shape };
    let (hidden, config) = (shape.hidden, source.config());
    loader.load_vocab_rows("model.embed_tokens.weight", weights.embedding)?;
    if !config.tie_word_embeddings {
        loader.load_vocab_rows("lm_head.weight", weights.head.weights)?;
    }
    loader.load_tensor("model.norm.weight", &[hidden], weights.norm)?;
    for (index, layer) in weights.layers.iter().enumerate() {
        loader.load_layer(index, layer)?;
    }
    let table = cos_sin(config, shape);
    Ok(loader.device.write(weights.cos_sin, &table)?)
}

/// Returns the table of rotary cosines and sines for every position. Padding dimensions are not rotated.
fn cos_sin(config: &LlamaConfig, shape: &ModelShape) -> Vec<u8> {
    let frequencies = config.rope_scaling.frequencies(config.rope_theta, shape.head_dim);
    let scale = config.rope_scaling.attention_factor();
    let mut table = Vec::with_capacity(shape.max_length * shape.padded_head_dim * 4);
    for position in 0..shape.max_length {
        // Angles are rounded to f32, as in training.
        let angles = frequencies.iter().map(|frequency| f64::from(position as f32 * frequency).sin_cos());
        let padding = std::iter::repeat_n((0.0, 1.0), shape.padded_head_dim / 2 - frequencies.len());
        let angles: Vec<(f64, f64)> = angles.chain(padding).collect();
        table.extend(angles.iter().flat_map(|&(_, cos)| ((cos * scale) as f32).to_le_bytes()));
        table.extend(angles.iter().flat_map(|&(sin, _)| ((sin * scale) as f32).to_le_bytes()));
    }
    table
}

/// The dimension of a matrix that is divided into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadSide {
    None,
    Rows,
    Columns,
}

/// A range of rows and a range of columns of a matrix.
struct MatrixSlice {
    /// Rows and columns of the whole matrix.
    shape: [usize; 2],
    ranges: [Range<usize>; 2],
}

struct DeviceWeightLoader<'a, A, S> {
    device: &'a mut A,
    source: &'a S,
    shape: &'a ModelShape,
}

impl<A: Accelerator, S: WeightSource> DeviceWeightLoader<'_, A, S> {
    fn load_layer(&mut self, index: usize, layer: &DeviceLayer) -> Result<(), LoadError> {
        let name = |tensor: &str| format!("model.layers.{index}.{tensor}");
        let &ModelShape { ref ranges, hidden, mlp, .. } = self.shape;
        let LlamaConfig { heads, intermediate_size, .. } = *self.source.config();
        self.load_tensor(&name("input_layernorm.weight"), &[hidden], layer.attention_norm)?;
        self.load_tensor(&name("post_attention_layernorm.weight"), &[hidden], layer.mlp_norm)?;
        self.load_qkv(&name, &layer.qkv)?;
        let slice = self.columns(heads * self.shape.head_dim, self.dimensions(&ranges.heads));
        self.load_module(&name(OUTPUT), slice, &layer.output, 0..hidden, HeadSide::Columns)?;
        if let Some((query, key)) = layer.head_norms {
            self.load_head_norm(&name("self_attn.q_norm.weight"), query)?;
            self.load_head_norm(&name("self_attn.k_norm.weight"), key)?;
        }
        for (half, module) in GATE_UP.into_iter().enumerate() {
            let slice = self.rows(intermediate_size, ranges.mlp.clone());
            self.load_module(&name(module), slice, &layer.gate_up, half * mlp..(half + 1) * mlp, HeadSide::None)?;
        }
        let slice = self.columns(intermediate_size, ranges.mlp.clone());
        self.load_module(&name(DOWN), slice, &layer.down, 0..hidden, HeadSide::None)
    }

    /// Loads the matrices of queries, keys and values, one after another.
    fn load_qkv(&mut self, name: &impl Fn(&str) -> String, to: &DeviceLinear) -> Result<(), LoadError> {
        let &ModelShape { ref ranges, heads, kv_heads, head_dim, padded_head_dim, .. } = self.shape;
        let LlamaConfig { heads: all_heads, kv_heads: all_kv_heads, .. } = *self.source.config();
        let queries = (all_heads, &ranges.heads, heads);
        let keys = (all_kv_heads, &ranges.kv_heads, kv_heads);
        let mut first = 0;
        for (module, (total, range, count)) in QKV.into_iter().zip([queries, keys, keys]) {
            let slice = self.rows(total * head_dim, self.dimensions(range));
            let outputs = first..first + count * padded_head_dim;
            first = outputs.end;
            self.load_module(&name(module), slice, to, outputs, HeadSide::Rows)?;
        }
        Ok(())
    }

    /// Converts a range of heads to the range of their dimensions.
    fn dimensions(&self, heads: &Range<usize>) -> Range<usize> {
        heads.start * self.shape.head_dim..heads.end * self.shape.head_dim
    }

    /// Returns a range of rows of a matrix that reads the residual stream and has `total` rows.
    fn rows(&self, total: usize, range: Range<usize>) -> MatrixSlice {
        let hidden = self.shape.hidden;
        MatrixSlice { shape: [total, hidden], ranges: [range, 0..hidden] }
    }

    /// Returns a range of columns of a matrix that writes to the residual stream and has `total` columns.
    fn columns(&self, total: usize, range: Range<usize>) -> MatrixSlice {
        let hidden = self.shape.hidden;
        MatrixSlice { shape: [hidden, total], ranges: [0..hidden, range] }
    }

    /// Loads a slice of a module's matrix and bias into a range of outputs of `to`, and fills the rest of the range
    /// with zeros.
    fn load_module(
        &mut self,
        name: &str,
        MatrixSlice { shape, ranges }: MatrixSlice,
        to: &DeviceLinear,
        outputs: Range<usize>,
        heads: HeadSide,
    ) -> Result<(), LoadError> {
        let weight = format!("{name}.weight");
        let columns = ranges[1].len();
        let output_region =
            |region: DeviceRegion, bytes: usize| region.subregion(outputs.start * bytes, outputs.len() * bytes);
        let value = if to.scales.is_some() { 1 } else { 2 };
        let (bytes, scales) = match to.scales {
            Some(_) => self.source.fp8_slice(&weight, shape, ranges.clone())?,
            None => (self.source.bf16_slice(&weight, &shape, ranges.clone())?, Vec::new()),
        };
        let weights = output_region(to.weights, to.k * value)?;
        match heads {
            HeadSide::None if columns != to.k => {
                self.write_padded(weights, &pad_rows(&bytes, columns * value, to.k * value))?;
            }
            HeadSide::Rows => self.write_heads(weights, &bytes, heads, columns * value)?,
            _ => self.write_heads(weights, &bytes, heads, value)?,
        }
        let row_heads = if heads == HeadSide::Rows { heads } else { HeadSide::None };
        if let Some(region) = to.scales {
            let bytes: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            self.write_heads(output_region(region, 4)?, &bytes, row_heads, 4)?;
        }
        if let Some(region) = to.bias {
            let bytes = self.source.bf16_slice(&format!("{name}.bias"), &shape[..1], [0..1, ranges[0].clone()])?;
            self.write_heads(output_region(region, 2)?, &bytes, row_heads, 2)?;
        }
        Ok(())
    }

    /// Writes bytes. If they consist of heads, pads each head with zeros. Each dimension of a head has `dimension`
    /// bytes.
    fn write_heads(
        &mut self,
        to: DeviceRegion,
        bytes: &[u8],
        heads: HeadSide,
        dimension: usize,
    ) -> Result<(), LoadError> {
        let is_padded = heads != HeadSide::None && self.shape.padded_head_dim != self.shape.head_dim;
        let bytes = if is_padded { Cow::Owned(pad_heads(self.shape, bytes, dimension)) } else { Cow::Borrowed(bytes) };
        self.write_padded(to, &bytes)
    }

    /// Writes bytes, and zeros after them.
    fn write_padded(&mut self, to: DeviceRegion, bytes: &[u8]) -> Result<(), LoadError> {
        self.device.write(to, bytes)?;
        let padding = to.bytes().saturating_sub(bytes.len());
        Ok(self.device.write(to.subregion(bytes.len(), padding)?, &vec![0; padding])?)
    }

    /// Loads a whole tensor.
    fn load_tensor(&mut self, name: &str, shape: &[usize], to: DeviceRegion) -> Result<(), LoadError> {
        let bytes = self.source.bf16(name, shape)?;
        Ok(self.device.write(to, &bytes)?)
    }

    /// Loads the rows of this rank's tokens, and fills the padding rows with zeros.
    fn load_vocab_rows(&mut self, name: &str, to: DeviceRegion) -> Result<(), LoadError> {
        let &ModelShape { ref ranges, vocab, hidden, .. } = self.shape;
        let bytes = self.source.bf16_slice(name, &[vocab, hidden], [ranges.vocab.clone(), 0..hidden])?;
        self.write_padded(to, &bytes)
    }

    /// Loads the weights of a norm over heads. The mean square over a padded head is smaller than over the original
    /// head, so the weights are scaled to compensate.
    fn load_head_norm(&mut self, name: &str, to: DeviceRegion) -> Result<(), LoadError> {
        if self.shape.padded_head_dim == self.shape.head_dim {
            return self.load_tensor(name, &[self.shape.head_dim], to);
        }
        let values = self.source.f32(name, &[self.shape.head_dim])?;
        let scale = self.shape.head_fill_ratio().sqrt();
        let bytes: Vec<u8> = values.iter().flat_map(|x| to_bf16(x * scale).to_le_bytes()).collect();
        Ok(self.device.write(to, &pad_heads(self.shape, &bytes, 2))?)
    }
}

/// Pads heads with zeros. Each dimension of a head has `dimension` bytes.
fn pad_heads(shape: &ModelShape, bytes: &[u8], dimension: usize) -> Vec<u8> {
    let (head, padded_head) = (shape.head_dim * dimension, shape.padded_head_dim * dimension);
    let mut padded = vec![0; bytes.len() / head * padded_head];
    for (from, to) in bytes.chunks_exact(head).zip(padded.chunks_exact_mut(padded_head)) {
        for (index, from) in from.chunks_exact(dimension).enumerate() {
            to[shape.padded_dimension(index) * dimension..][..dimension].copy_from_slice(from);
        }
    }
    padded
}

/// Pads rows of `row` bytes with zeros to `padded_row` bytes.
fn pad_rows(bytes: &[u8], row: usize, padded_row: usize) -> Vec<u8> {
    let mut rows = vec![0; bytes.len().checked_div(row).unwrap_or(0) * padded_row];
    for (from, to) in bytes.chunks_exact(row.max(1)).zip(rows.chunks_exact_mut(padded_row)) {
        to[..row].copy_from_slice(from);
    }
    rows
}

/// Rounds a finite value to bf16, ties to even, and returns the result's bits.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
