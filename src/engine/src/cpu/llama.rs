//! A Llama's weights, packed for the CPU's products, and its forward pass.

use std::ops::Range;

use rayon::prelude::*;
use surprisal_model::{Checkpoint, LlamaConfig};

use super::attention::{self, HeadNorms, Inputs, Shape};
use super::head;
use super::kv::LayerKv;
use super::math;
use super::matrix::{Compute, Left, Write, multiply, terms};
use super::panels::{PANEL, Panels, Row, panels_for};
use super::rope::{Angles, Rope};
use super::weights::{WeightType, Weights};
use crate::backend::ForwardBatch;
use crate::communicator::{Communicator, RankLost};
use crate::part::Part;

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

/// Values that ranks add up at a time, for each of a rank's terms.
const SUM_VALUES: usize = 1 << 20;

/// Room for a layer's activations, kept from pass to pass: no pass waits for the memory's pages.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    normed: Panels,
    /// Queries, keys and values; then the MLP's gates, and what they let through.
    wide: Panels,
    attended: Panels,
}

/// The other ranks of a group, if the model is divided.
pub(crate) type Ranks = Option<Box<dyn Communicator>>;

impl Linear {
    fn apply(&self, compute: Compute, x: &Panels, out: &mut Panels, write: Write) {
        multiply(compute, x, &self.weights, out, write);
        if let Some(bias) = &self.bias {
            math::add_bias(out, bias);
        }
    }

    /// Adds a product to `out` of which each rank has a part of `x`, none where that is `None`: the sum of each block of each rank's
    /// depth, in the order in which one rank adds its own.
    fn add(&self, compute: Compute, x: Option<&Panels>, out: &mut Panels, ranks: &mut Ranks) -> Result<(), RankLost> {
        let Some(others) = ranks else {
            x.into_iter().for_each(|x| self.apply(compute, x, out, Write::Add));
            return Ok(());
        };
        let (rows, all) = (out.rows(), out.panels());
        let x = x.map(|x| Left::new(compute, x));
        let some = (SUM_VALUES / (rows.max(1) * PANEL)).max(1);
        for first in (0..all).step_by(some) {
            let panels = first..all.min(first + some);
            let terms = x.as_ref().map_or_else(Vec::new, |x| terms(compute, x, rows, &self.weights, panels.clone()));
            others.all_reduce(out.values_mut(panels), terms)?;
        }
        if let Some(bias) = &self.bias {
            math::add_bias(out, bias);
        }
        Ok(())
    }
}

/// The whole model, or what one rank has of it.
#[derive(Debug)]
pub(crate) struct Llama {
    compute: Compute,
    hidden_size: usize,
    eps: f64,
    mlp_panels: usize,
    shape: Shape,
    rope: Rope,
    /// The tokens that the embedding and the head are of.
    vocab: Range<usize>,
    /// Panels of the vocabulary that the head sums up together.
    chunks: Vec<Range<usize>>,
    embedding: Weights,
    layers: Vec<Layer>,
    norm: Vec<Row>,
    /// `None` when the embedding serves as the head.
    head: Option<Weights>,
}

impl Llama {
    /// Reads and packs a part of all tensors of a checkpoint that was [checked](Checkpoint::check).
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        kind: WeightType,
        compute: Compute,
        part: Part,
    ) -> Result<Self, surprisal_model::Error> {
        let config = checkpoint.config();
        let (heads, kv_heads) = part.heads(config);
        let (vocab, mlp) = (part.vocab(config), Columns::new(&part.mlp_pieces(config)));
        let shape = shape(config, heads.len(), kv_heads.len());
        let mlp_panels = mlp.panels();
        let head_pieces = part.head_pieces(config);
        let loader = Loader { checkpoint, config, kind, heads, head_pieces, kv_heads, mlp };
        let hidden = config.hidden_size;
        let embedding = loader.vocabulary("model.embed_tokens.weight", &vocab)?;
        let layers = loader.layers()?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => Some(loader.vocabulary("lm_head.weight", &vocab)?),
        };
        Ok(Self {
            compute,
            hidden_size: hidden,
            eps: config.rms_norm_eps,
            mlp_panels,
            shape,
            rope: Rope::new(config),
            vocab,
            chunks: head::chunks(&part.vocab_pieces(config)),
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

    /// Panels of the vocabulary that the head sums up together.
    pub(crate) fn chunks(&self) -> &[Range<usize>] {
        &self.chunks
    }

    /// Runs the batch's tokens through all layers; returns the residual stream, before the last norm.
    pub(crate) fn forward(
        &self,
        batch: &ForwardBatch,
        kv: &mut [LayerKv],
        scratch: &mut Scratch,
        ranks: &mut Ranks,
    ) -> Result<Panels, RankLost> {
        let mut x = self.embed(&batch.tokens);
        if let Some(others) = ranks {
            let (mut all, panels) = (Panels::zeros(x.rows(), x.panels()), x.panels());
            others.all_reduce(all.values_mut(0..panels), x.into_values())?;
            x = all;
        }
        let angles = self.rope.angles(&batch.chunks);
        for (layer, kv) in self.layers.iter().zip(kv) {
            let attended = self.attended(layer, batch, &angles, kv, &x, scratch);
            layer.output.add(self.compute, attended, &mut x, ranks)?;
            let gated = self.gated(layer, &x, scratch);
            layer.down.add(self.compute, gated, &mut x, ranks)?;
        }
        Ok(x)
    }

    /// The last norm: from the residual stream to what the head reads.
    pub(crate) fn last_norm(&self, x: &Panels) -> Panels {
        let mut normed = Panels::default();
        self.rms_norm(x, &self.norm, &mut normed);
        normed
    }

    fn rms_norm(&self, x: &Panels, weight: &[Row], out: &mut Panels) {
        math::rms_norm(self.compute.arch, x, self.hidden_size, self.eps, weight, out);
    }

    fn embed(&self, tokens: &[u32]) -> Panels {
        let mut x = Panels::zeros(tokens.len(), self.embedding.depth_panels());
        x.panels_mut().enumerate().for_each(|(panel, rows)| {
            for (row, &token) in rows.iter_mut().zip(tokens) {
                if self.vocab.contains(&(token as usize)) {
                    *row = self.embedding.output_panel(token as usize - self.vocab.start, panel);
                }
            }
        });
        x
    }

    /// What the layer's heads make of `x`, if the rank has any of them.
    fn attended<'a>(
        &self,
        layer: &Layer,
        batch: &ForwardBatch,
        angles: &Angles,
        kv: &mut LayerKv,
        x: &Panels,
        scratch: &'a mut Scratch,
    ) -> Option<&'a Panels> {
        if self.shape.heads == 0 {
            return None;
        }
        let Scratch { normed, wide: qkv, attended } = scratch;
        self.rms_norm(x, &layer.attention_norm, normed);
        qkv.reshape(x.rows(), layer.qkv.weights.panels());
        layer.qkv.apply(self.compute, normed, qkv, Write::Set);
        let norms = layer.head_norms.as_ref();
        let inputs = Inputs { shape: &self.shape, norms, angles, qkv, chunks: &batch.chunks };
        attention::write_kv(self.compute.arch, &inputs, kv);
        attention::attend(self.compute.arch, &inputs, kv, attended);
        Some(attended)
    }

    /// What the MLP's gates let through of `x`, if the rank has any of them.
    fn gated<'a>(&self, layer: &Layer, x: &Panels, scratch: &'a mut Scratch) -> Option<&'a Panels> {
        if self.mlp_panels == 0 {
            return None;
        }
        let Scratch { normed, wide, .. } = scratch;
        self.rms_norm(x, &layer.mlp_norm, normed);
        wide.reshape(x.rows(), layer.gate_up.weights.panels());
        layer.gate_up.apply(self.compute, normed, wide, Write::Set);
        let (gate, up) = wide.split_mut(self.mlp_panels);
        math::silu_mul(self.compute.arch, gate, up);
        wide.truncate(self.mlp_panels);
        Some(wide)
    }
}

/// The attention's shape as a checkpoint's configuration gives it, for so many of its heads.
fn shape(config: &LlamaConfig, heads: usize, kv_heads: usize) -> Shape {
    Shape {
        heads,
        kv_heads,
        head_dim: config.head_dim,
        head_panels: panels_for(config.head_dim),
        window: config.sliding_window.unwrap_or(usize::MAX),
        eps: config.rms_norm_eps,
    }
}

/// Reads parts of tensors and packs them, each head padded to whole panels.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a LlamaConfig,
    kind: WeightType,
    heads: Range<usize>,
    head_pieces: Vec<Range<usize>>,
    kv_heads: Range<usize>,
    mlp: Columns,
}

/// Columns of the MLP in pieces of which each begins a panel.
struct Columns {
    all: Range<usize>,
    pieces: Vec<usize>,
    /// Where each column lies.
    places: Vec<usize>,
}

impl Columns {
    fn new(pieces: &[Range<usize>]) -> Self {
        let start = pieces.first().map_or(0, |piece| piece.start);
        let mut columns = Self { all: start..start, pieces: Vec::new(), places: Vec::new() };
        for piece in pieces {
            let first = columns.panels() * PANEL;
            columns.places.extend(first..first + piece.len());
            columns.pieces.push(piece.len());
            columns.all.end = piece.end;
        }
        columns
    }

    fn panels(&self) -> usize {
        self.places.last().map_or(0, |last| panels_for(last + 1))
    }
}

/// Some rows of a matrix, and how many it has.
struct Rows {
    of: usize,
    own: Range<usize>,
}

impl Loader<'_> {
    /// All layers, as many at a time as there are threads to read and pack them.
    fn layers(&self) -> Result<Vec<Layer>, surprisal_model::Error> {
        let mut layers = Vec::with_capacity(self.config.layers);
        while layers.len() < self.config.layers {
            let next = layers.len()..self.config.layers.min(layers.len() + rayon::current_num_threads());
            layers.append(&mut next.into_par_iter().map(|index| self.layer(index)).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(layers)
    }

    fn layer(&self, index: usize) -> Result<Layer, surprisal_model::Error> {
        let config = self.config;
        let name = |tensor: &str| format!("model.layers.{index}.{tensor}");
        let (hidden, mlp, head_dim) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let padded = panels_for(head_dim) * PANEL;
        let pad = move |i: usize| i / head_dim * padded + i % head_dim;
        let columns = |heads: &Range<usize>| heads.start * head_dim..heads.end * head_dim;
        let rows = |heads: usize, own: &Range<usize>| Rows { of: heads * head_dim, own: columns(own) };

        let keys = || rows(config.kv_heads, &self.kv_heads);
        let qkv = [("q_proj", rows(config.heads, &self.heads)), ("k_proj", keys()), ("v_proj", keys())];
        let qkv = qkv.map(|(tensor, rows)| (name(&format!("self_attn.{tensor}")), rows));
        let queries = config.heads * head_dim;
        let pieces = self.head_pieces.iter().map(|heads| heads.len() * padded);
        let mut output = Weights::in_pieces(self.kind, hidden, pieces);
        let own = columns(&self.heads);
        self.pack(&name("self_attn.o_proj.weight"), [hidden, queries], [0..hidden, own], &mut output, |n| n, pad)?;
        let mut down = Weights::in_pieces(self.kind, hidden, self.mlp.pieces.iter().copied());
        let own = [0..hidden, self.mlp.all.clone()];
        let place = |column: usize| self.mlp.places[column];
        self.pack(&name("mlp.down_proj.weight"), [hidden, mlp], own, &mut down, |n| n, place)?;
        let own = || self.mlp.all.clone();
        let gate_up =
            ["gate_proj", "up_proj"].map(|tensor| (name(&format!("mlp.{tensor}")), Rows { of: mlp, own: own() }));
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
            gate_up: self.fused(&gate_up, hidden, config.mlp_bias, place)?,
            down: Linear { weights: down, bias: bias("mlp.down_proj.bias", config.mlp_bias)? },
        })
    }

    /// Rows of several matrices of one input as one product: each from a panel of its own on, its outputs where `place` puts them.
    fn fused(
        &self,
        parts: &[(String, Rows)],
        depth: usize,
        has_bias: bool,
        place: impl Fn(usize) -> usize + Copy,
    ) -> Result<Linear, surprisal_model::Error> {
        let panels = |rows: &Rows| rows.own.len().checked_sub(1).map_or(0, |last| panels_for(place(last) + 1));
        let total: usize = parts.iter().map(|(_, rows)| panels(rows)).sum();
        let mut weights = Weights::zeros(self.kind, total * PANEL, depth);
        let mut bias = vec![[0.0; PANEL]; total];
        let mut first = 0;
        for (name, rows) in parts {
            let (shape, own) = ([rows.of, depth], [rows.own.clone(), 0..depth]);
            self.pack(&format!("{name}.weight"), shape, own, &mut weights, |n| first + place(n), |k| k)?;
            if has_bias {
                let values = self.read(&format!("{name}.bias"), &[rows.of])?;
                for (n, &value) in values[rows.own.clone()].iter().enumerate() {
                    bias.as_flattened_mut()[first + place(n)] = value;
                }
            }
            first += panels(rows) * PANEL;
        }
        Ok(Linear { weights, bias: has_bias.then_some(bias) })
    }

    /// Some tokens' rows of the embedding or the head.
    fn vocabulary(&self, name: &str, tokens: &Range<usize>) -> Result<Weights, surprisal_model::Error> {
        let LlamaConfig { vocab_size, hidden_size: hidden, .. } = *self.config;
        let mut weights = Weights::zeros(self.kind, tokens.len(), hidden);
        self.pack(name, [vocab_size, hidden], [tokens.clone(), 0..hidden], &mut weights, |n| n, |k| k)?;
        Ok(weights)
    }

    /// Packs some rows and columns of a matrix as they are read: the `i`-th of these rows becomes output `output(i)`, the `j`-th
    /// of these columns depth `input(j)`.
    fn pack(
        &self,
        name: &str,
        shape: [usize; 2],
        own: [Range<usize>; 2],
        weights: &mut Weights,
        output: impl Fn(usize) -> usize,
        input: impl Fn(usize) -> usize + Copy,
    ) -> Result<(), surprisal_model::Error> {
        let columns = own[1].len();
        self.checkpoint.read_part(name, shape, own, |first, rows| {
            weights.set_rows(rows, columns, |n| output(first + n), input);
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
