//! The forward pass of a Llama on the CPU.

use std::ops::Range;

use surprisal_model::{Checkpoint, Error, LlamaConfig};

use super::attention::{self, AttentionInputs, AttentionShape};
use super::compute::{ComputeMode, WriteMode};
use super::head;
use super::kv::LayerKv;
use super::llama_loader::{Layer, LlamaWeights};
use super::math;
use super::packed_matrix::{PackedMatrix, WeightDtype};
use super::panel_matrix::{PanelMatrix, PanelRow, panels_for};
use super::pool;
use super::rope::{Angles, Rope};
use crate::backend::ForwardBatch;
use crate::parallel::communicator::{RankCommunicator, RankLost};
use crate::parallel::rank_slice::RankSlice;

/// Buffers for a layer's activations. They are kept between passes, so that no pass waits for fresh memory pages.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    normed: PanelMatrix,
    /// Queries, keys and values; then the MLP's gate and up activations, and their product.
    wide: PanelMatrix,
    attended: PanelMatrix,
}

/// The whole model, or one rank's slice of it.
#[derive(Debug)]
pub(super) struct Llama {
    compute: ComputeMode,
    hidden_size: usize,
    eps: f64,
    shape: AttentionShape,
    rope: Rope,
    /// The tokens whose rows of the embedding and the head are on this rank.
    vocab: Range<usize>,
    /// The [chunks](head::vocab_chunks) of this rank's slice of the vocabulary.
    vocab_chunks: Vec<Range<usize>>,
    weights: LlamaWeights,
}

impl Llama {
    /// Loads a rank's slice of a checkpoint that was [checked](Checkpoint::check).
    pub(super) fn load(
        checkpoint: &Checkpoint,
        weight_dtype: WeightDtype,
        compute: ComputeMode,
        slice: RankSlice,
    ) -> Result<Self, Error> {
        let config = checkpoint.config();
        Ok(Self {
            compute,
            hidden_size: config.hidden_size,
            eps: config.rms_norm_eps,
            shape: attention_shape(config, slice),
            rope: Rope::new(config),
            vocab: slice.vocab(config),
            vocab_chunks: head::vocab_chunks(&slice.vocab_pieces(config)),
            weights: LlamaWeights::load(checkpoint, weight_dtype, slice)?,
        })
    }

    /// Allocates an empty KV cache for one layer.
    pub(super) fn layer_kv(&self, blocks: usize) -> LayerKv {
        LayerKv::new(blocks, self.shape.kv_heads, self.shape.head_panels)
    }

    pub(super) fn layers(&self) -> usize {
        self.weights.layers.len()
    }

    pub(super) fn head(&self) -> &PackedMatrix {
        self.weights.head.as_ref().unwrap_or(&self.weights.embedding)
    }

    /// Returns the [chunks](head::vocab_chunks) of this rank's slice of the vocabulary.
    pub(super) fn vocab_chunks(&self) -> &[Range<usize>] {
        &self.vocab_chunks
    }

    /// Runs the batch's tokens through all layers; returns the residual stream, before the last norm.
    pub(super) fn forward(
        &self,
        batch: &ForwardBatch,
        kv: &mut [LayerKv],
        scratch: &mut Scratch,
        communicator: &mut RankCommunicator,
    ) -> Result<PanelMatrix, RankLost> {
        let mut x = self.embed(&batch.tokens);
        if let Some(communicator) = communicator {
            let (mut sum, panels) = (PanelMatrix::zeros(x.rows(), x.panels()), x.panels());
            communicator.all_reduce(sum.values_mut(0..panels), x.into_values())?;
            x = sum;
        }
        let angles = self.rope.angles(&batch.chunks);
        for (layer, kv) in self.weights.layers.iter().zip(kv) {
            let attended = self.attention(layer, batch, &angles, kv, &x, scratch);
            layer.output.add_across_ranks(self.compute, attended, &mut x, communicator)?;
            let inner = self.mlp(layer, &x, scratch);
            layer.down.add_across_ranks(self.compute, inner, &mut x, communicator)?;
        }
        Ok(x)
    }

    /// Applies the last norm, which turns the residual stream into the head's input.
    pub(super) fn last_norm(&self, x: &PanelMatrix) -> PanelMatrix {
        let mut normed = PanelMatrix::default();
        self.rms_norm(x, &self.weights.norm, &mut normed);
        normed
    }

    fn rms_norm(&self, x: &PanelMatrix, weight: &[PanelRow], out: &mut PanelMatrix) {
        math::rms_norm(self.compute.arch, x, self.hidden_size, self.eps, weight, out);
    }

    /// Looks up the embeddings. Tokens whose embeddings are on another rank stay zero.
    fn embed(&self, tokens: &[u32]) -> PanelMatrix {
        let embedding = &self.weights.embedding;
        let mut x = PanelMatrix::zeros(tokens.len(), embedding.depth_panels());
        pool::for_each(x.panels_mut().enumerate(), |(panel, rows)| {
            for (row, &token) in rows.iter_mut().zip(tokens) {
                if self.vocab.contains(&(token as usize)) {
                    *row = embedding.output_panel(token as usize - self.vocab.start, panel);
                }
            }
        });
        x
    }

    /// Computes attention, excluding the output projection; returns `None` if the rank has no heads.
    fn attention<'a>(
        &self,
        layer: &Layer,
        batch: &ForwardBatch,
        angles: &Angles,
        kv: &mut LayerKv,
        x: &PanelMatrix,
        scratch: &'a mut Scratch,
    ) -> Option<&'a PanelMatrix> {
        if self.shape.heads == 0 {
            return None;
        }
        let Scratch { normed, wide: qkv, attended } = scratch;
        self.rms_norm(x, &layer.attention_norm, normed);
        qkv.reshape(x.rows(), layer.qkv.weights.output_panels());
        layer.qkv.apply(self.compute, normed, qkv, WriteMode::Set);
        let norms = layer.head_norms.as_ref();
        let inputs = AttentionInputs { shape: &self.shape, norms, angles, qkv, chunks: &batch.chunks };
        attention::write_kv(self.compute.arch, &inputs, kv);
        attention::attend(self.compute.arch, &inputs, kv, attended);
        Some(attended)
    }

    /// Computes the MLP's inner activations, the input of the down projection; returns `None` if the rank has no
    /// columns.
    fn mlp<'a>(&self, layer: &Layer, x: &PanelMatrix, scratch: &'a mut Scratch) -> Option<&'a PanelMatrix> {
        let panels = self.weights.mlp_panels;
        if panels == 0 {
            return None;
        }
        let Scratch { normed, wide, .. } = scratch;
        self.rms_norm(x, &layer.mlp_norm, normed);
        wide.reshape(x.rows(), layer.gate_up.weights.output_panels());
        layer.gate_up.apply(self.compute, normed, wide, WriteMode::Set);
        let (gate, up) = wide.split_mut(panels);
        math::silu_mul(self.compute.arch, gate, up);
        wide.truncate(panels);
        Some(wide)
    }
}

/// Returns the shape of a rank's attention layers.
fn attention_shape(config: &LlamaConfig, slice: RankSlice) -> AttentionShape {
    let (heads, kv_heads) = slice.heads(config);
    AttentionShape {
        heads: heads.len(),
        kv_heads: kv_heads.len(),
        head_dim: config.head_dim,
        head_panels: panels_for(config.head_dim),
        window: config.sliding_window.unwrap_or(usize::MAX),
        eps: config.rms_norm_eps,
    }
}
