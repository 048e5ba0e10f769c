//! The loader of a Llama's weights: reads them, or one rank's slice of them, from a checkpoint and packs them for the
//! CPU's GEMM.

use std::ops::Range;

use rayon::prelude::*;
use surprisal_model::{Checkpoint, Error, LlamaConfig};

use super::attention::HeadNorms;
use super::linear::Linear;
use super::packed_matrix::{PackedMatrix, WeightDtype};
use super::panel_matrix::{PANEL_WIDTH, PanelRow, panels_for};
use crate::parallel::rank_slice::RankSlice;

/// The weights of a Llama, or one rank's slice of them.
#[derive(Debug)]
pub(super) struct LlamaWeights {
    pub(super) embedding: PackedMatrix,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Vec<PanelRow>,
    /// The head's matrix; `None` if the embedding serves as the head.
    pub(super) head: Option<PackedMatrix>,
    /// Number of panels of the MLP's inner activations.
    pub(super) mlp_panels: usize,
}

/// The weights of one decoder layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Vec<PanelRow>,
    pub(super) qkv: Linear,
    pub(super) head_norms: Option<HeadNorms>,
    pub(super) output: Linear,
    pub(super) mlp_norm: Vec<PanelRow>,
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
}

impl LlamaWeights {
    /// Reads and packs a rank's slice of all tensors of a checkpoint that was [checked](Checkpoint::check).
    pub(super) fn load(checkpoint: &Checkpoint, weight_dtype: WeightDtype, slice: RankSlice) -> Result<Self, Error> {
        let config = checkpoint.config();
        let (heads, kv_heads) = slice.heads(config);
        let mlp = MlpColumns::new(&slice.mlp_pieces(config));
        let mlp_panels = mlp.panels();
        let head_pieces = slice.head_pieces(config);
        let vocab = slice.vocab(config);
        let loader = WeightLoader { checkpoint, config, weight_dtype, heads, head_pieces, kv_heads, mlp };
        let embedding = loader.load_vocab_rows("model.embed_tokens.weight", &vocab)?;
        let layers = loader.load_layers()?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => Some(loader.load_vocab_rows("lm_head.weight", &vocab)?),
        };
        let norm = loader.load_vector("model.norm.weight", config.hidden_size)?;
        Ok(Self { embedding, layers, norm, head, mlp_panels })
    }
}

/// A loader that reads slices of tensors and packs them, with each head padded to whole panels.
struct WeightLoader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a LlamaConfig,
    weight_dtype: WeightDtype,
    /// The rank's query heads.
    heads: Range<usize>,
    /// The same heads, in pieces.
    head_pieces: Vec<Range<usize>>,
    kv_heads: Range<usize>,
    mlp: MlpColumns,
}

/// The rank's columns of the MLP, in pieces that each start a new panel.
struct MlpColumns {
    columns: Range<usize>,
    piece_lengths: Vec<usize>,
    /// The padded position of each column.
    positions: Vec<usize>,
}

impl MlpColumns {
    fn new(pieces: &[Range<usize>]) -> Self {
        let start = pieces.first().map_or(0, |piece| piece.start);
        let mut mlp = Self { columns: start..start, piece_lengths: Vec::new(), positions: Vec::new() };
        for piece in pieces {
            let first = mlp.panels() * PANEL_WIDTH;
            mlp.positions.extend(first..first + piece.len());
            mlp.piece_lengths.push(piece.len());
            mlp.columns.end = piece.end;
        }
        mlp
    }

    fn panels(&self) -> usize {
        self.positions.last().map_or(0, |last| panels_for(last + 1))
    }
}

/// The rows of a matrix that a rank reads, and the number of rows of the whole matrix.
struct RowSlice {
    total: usize,
    range: Range<usize>,
}

impl WeightLoader<'_> {
    /// Loads all layers in parallel, one per thread at a time.
    fn load_layers(&self) -> Result<Vec<Layer>, Error> {
        let mut layers = Vec::with_capacity(self.config.layers);
        while layers.len() < self.config.layers {
            let next = layers.len()..self.config.layers.min(layers.len() + rayon::current_num_threads());
            layers
                .append(&mut next.into_par_iter().map(|index| self.load_layer(index)).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(layers)
    }

    fn load_layer(&self, index: usize) -> Result<Layer, Error> {
        let config = self.config;
        let hidden = config.hidden_size;
        let name = |tensor: &str| format!("model.layers.{index}.{tensor}");
        let bias = |tensor: &str, has_bias: bool| has_bias.then(|| self.load_vector(&name(tensor), hidden)).transpose();
        let output = self.load_attention_output(&name("self_attn.o_proj.weight"))?;
        let down = self.load_mlp_down(&name("mlp.down_proj.weight"))?;
        let head_norms = match config.qk_norm {
            true => Some(HeadNorms {
                query: self.load_vector(&name("self_attn.q_norm.weight"), config.head_dim)?,
                key: self.load_vector(&name("self_attn.k_norm.weight"), config.head_dim)?,
            }),
            false => None,
        };
        Ok(Layer {
            attention_norm: self.load_vector(&name("input_layernorm.weight"), hidden)?,
            qkv: self.load_qkv(&name)?,
            head_norms,
            output: Linear { weights: output, bias: bias("self_attn.o_proj.bias", config.output_bias)? },
            mlp_norm: self.load_vector(&name("post_attention_layernorm.weight"), hidden)?,
            gate_up: self.load_gate_up(&name)?,
            down: Linear { weights: down, bias: bias("mlp.down_proj.bias", config.mlp_bias)? },
        })
    }

    /// Returns the number of columns of a stored head: `head_dim` rounded up to whole panels.
    fn padded_head_dim(&self) -> usize {
        panels_for(self.config.head_dim) * PANEL_WIDTH
    }

    /// Returns a function that maps a dimension, counted across all heads, to its padded position.
    fn padded_dimension(&self) -> impl Fn(usize) -> usize + Copy + 'static {
        let (head_dim, padded) = (self.config.head_dim, self.padded_head_dim());
        move |dimension| dimension / head_dim * padded + dimension % head_dim
    }

    /// Returns the dimensions of the given heads, counted across all heads.
    fn dimensions(&self, heads: &Range<usize>) -> Range<usize> {
        heads.start * self.config.head_dim..heads.end * self.config.head_dim
    }

    /// Loads the query, key and value projections as one matrix.
    fn load_qkv(&self, name: &impl Fn(&str) -> String) -> Result<Linear, Error> {
        let config = self.config;
        let rows = |total: usize, heads: &Range<usize>| RowSlice {
            total: total * config.head_dim,
            range: self.dimensions(heads),
        };
        let parts = [
            (name("self_attn.q_proj"), rows(config.heads, &self.heads)),
            (name("self_attn.k_proj"), rows(config.kv_heads, &self.kv_heads)),
            (name("self_attn.v_proj"), rows(config.kv_heads, &self.kv_heads)),
        ];
        self.load_fused(&parts, config.hidden_size, config.qkv_bias, self.padded_dimension())
    }

    /// Loads the MLP's gate and up projections as one matrix.
    fn load_gate_up(&self, name: &impl Fn(&str) -> String) -> Result<Linear, Error> {
        let config = self.config;
        let rows = || RowSlice { total: config.intermediate_size, range: self.mlp.columns.clone() };
        let parts = [(name("mlp.gate_proj"), rows()), (name("mlp.up_proj"), rows())];
        self.load_fused(&parts, config.hidden_size, config.mlp_bias, |column| self.mlp.positions[column])
    }

    fn load_attention_output(&self, name: &str) -> Result<PackedMatrix, Error> {
        let hidden = self.config.hidden_size;
        let padded = self.padded_head_dim();
        let pieces = self.head_pieces.iter().map(|heads| heads.len() * padded);
        let mut weights = PackedMatrix::zeros_in_pieces(self.weight_dtype, hidden, pieces);
        let shape = [hidden, self.config.heads * self.config.head_dim];
        let ranges = [0..hidden, self.dimensions(&self.heads)];
        self.pack(name, shape, ranges, &mut weights, |n| n, self.padded_dimension())?;
        Ok(weights)
    }

    fn load_mlp_down(&self, name: &str) -> Result<PackedMatrix, Error> {
        let hidden = self.config.hidden_size;
        let pieces = self.mlp.piece_lengths.iter().copied();
        let mut weights = PackedMatrix::zeros_in_pieces(self.weight_dtype, hidden, pieces);
        let shape = [hidden, self.config.intermediate_size];
        let ranges = [0..hidden, self.mlp.columns.clone()];
        self.pack(name, shape, ranges, &mut weights, |n| n, |column| self.mlp.positions[column])?;
        Ok(weights)
    }

    /// Packs rows of several matrices, all of which multiply the same input, into one matrix. Each source matrix starts
    /// a new panel; `position` maps each of its outputs to a position relative to the start of that panel.
    fn load_fused(
        &self,
        matrices: &[(String, RowSlice)],
        depth: usize,
        has_bias: bool,
        position: impl Fn(usize) -> usize + Copy,
    ) -> Result<Linear, Error> {
        let panels = |rows: &RowSlice| rows.range.len().checked_sub(1).map_or(0, |last| panels_for(position(last) + 1));
        let total: usize = matrices.iter().map(|(_, rows)| panels(rows)).sum();
        let mut weights = PackedMatrix::zeros(self.weight_dtype, total * PANEL_WIDTH, depth);
        let mut bias = vec![[0.0; PANEL_WIDTH]; total];
        let mut first = 0;
        for (name, rows) in matrices {
            let (shape, ranges) = ([rows.total, depth], [rows.range.clone(), 0..depth]);
            self.pack(&format!("{name}.weight"), shape, ranges, &mut weights, |n| first + position(n), |k| k)?;
            if has_bias {
                let values = self.read_tensor(&format!("{name}.bias"), &[rows.total])?;
                for (n, &value) in values[rows.range.clone()].iter().enumerate() {
                    bias.as_flattened_mut()[first + position(n)] = value;
                }
            }
            first += panels(rows) * PANEL_WIDTH;
        }
        Ok(Linear { weights, bias: has_bias.then_some(bias) })
    }

    /// Loads the rows of some tokens from the embedding or the head.
    fn load_vocab_rows(&self, name: &str, tokens: &Range<usize>) -> Result<PackedMatrix, Error> {
        let LlamaConfig { vocab_size, hidden_size: hidden, .. } = *self.config;
        let mut weights = PackedMatrix::zeros(self.weight_dtype, tokens.len(), hidden);
        self.pack(name, [vocab_size, hidden], [tokens.clone(), 0..hidden], &mut weights, |n| n, |k| k)?;
        Ok(weights)
    }

    /// Packs some rows and columns of a matrix while reading them: the `i`-th of these rows becomes output `output(i)`,
    /// and the `j`-th of these columns becomes depth index `input(j)`.
    fn pack(
        &self,
        name: &str,
        shape: [usize; 2],
        ranges: [Range<usize>; 2],
        weights: &mut PackedMatrix,
        output: impl Fn(usize) -> usize,
        input: impl Fn(usize) -> usize + Copy,
    ) -> Result<(), Error> {
        let columns = ranges[1].len();
        self.checkpoint.read_slice(name, shape, ranges, |first, rows| {
            weights.pack_rows(rows, columns, |n| output(first + n), input);
        })
    }

    /// Loads a vector in panels, padded with zeros.
    fn load_vector(&self, name: &str, len: usize) -> Result<Vec<PanelRow>, Error> {
        let values = self.read_tensor(name, &[len])?;
        let mut rows = vec![[0.0; PANEL_WIDTH]; panels_for(len)];
        rows.as_flattened_mut()[..len].copy_from_slice(&values);
        Ok(rows)
    }

    fn read_tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        self.checkpoint.tensor_f32(name, shape)
    }
}
