//! `KernelBench`: one CPU kernel with synthetic operands, for benchmarks.

use surprisal_model::RopeScaling;

use super::attention::{self, AttentionInputs, AttentionShape};
use super::compute::{ActivationDtype, ComputeMode, WriteMode};
use super::gemm::multiply;
use super::head::{self, Head};
use super::instructions::Instructions;
use super::kv::LayerKv;
use super::math;
use super::packed_matrix::{PackedMatrix, WeightDtype};
use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, panels_for};
use super::pool::Pool;
use super::rope::{Angles, Rope};
use crate::backend::{BLOCK_TOKENS, BlockId, Chunk, Hidden, ScoreRow, TokenChoice};
use crate::load_error::LoadError;
use crate::scorer::PositionOptions;

/// A kernel and its operands.
pub struct KernelBench {
    pool: Pool,
    operations: f64,
    kernel: Box<dyn FnMut() + Send>,
}

impl KernelBench {
    /// Runs the kernel once, on all cores.
    pub fn run(&mut self) {
        self.pool.install(&mut self.kernel);
    }

    /// Returns the number of multiplications and additions in one run, excluding those of softmax; 0 for
    /// [`elementwise`](Self::elementwise).
    pub fn operations(&self) -> f64 {
        self.operations
    }

    fn new(operations: usize, kernel: impl FnMut() + Send + 'static) -> Result<Self, LoadError> {
        let pool = Pool::new(0, "surprisal-probe".to_owned())?;
        Ok(Self { pool, operations: operations as f64, kernel: Box::new(kernel) })
    }

    /// Creates a benchmark of the product `[rows][depth] * [outputs][depth]^T`.
    ///
    /// # Errors
    ///
    /// Returns an error if the threads cannot be started.
    pub fn gemm(
        rows: usize,
        depth: usize,
        outputs: usize,
        weights: WeightDtype,
        activations: ActivationDtype,
    ) -> Result<Self, LoadError> {
        let compute = best_compute(activations)?;
        let weights = sample_weights(outputs, depth, weights);
        let (a, mut out) = (sample_panels(rows, depth), PanelMatrix::zeros(rows, weights.output_panels()));
        Self::new(2 * rows * depth * outputs, move || multiply(compute, &a, &weights, &mut out, WriteMode::Set))
    }

    /// Creates a benchmark of causal attention in f32: a text's last `rows` tokens attend to all of its `length`
    /// tokens.
    ///
    /// # Errors
    ///
    /// Returns an error if the threads cannot be started.
    pub fn attention(
        rows: usize,
        length: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
    ) -> Result<Self, LoadError> {
        let arch = best_compute(ActivationDtype::F32)?.arch;
        let head_panels = panels_for(head_dim);
        let shape = AttentionShape { heads, kv_heads, head_dim, head_panels, window: usize::MAX, eps: 1e-5 };
        let blocks = length.div_ceil(BLOCK_TOKENS);
        let mut kv = LayerKv::new(blocks, kv_heads, head_panels);
        let values: Vec<_> = sample_panels(1, head_dim).all().to_vec();
        let ids: Vec<BlockId> = (0..blocks as BlockId).collect();
        for mut block in kv.blocks_mut(&ids) {
            for (slot, head) in (0..BLOCK_TOKENS).flat_map(|slot| (0..kv_heads).map(move |head| (slot, head))) {
                block.write_token(slot, head, &values, &values);
            }
        }
        let chunk = Chunk { rows: 0..rows, start: length - rows, blocks: ids };
        let angles = Angles::identity(rows, head_dim);
        let qkv = sample_panels(rows, (heads + 2 * kv_heads) * head_panels * PANEL_WIDTH);
        let mut out = PanelMatrix::default();
        let pairs = rows * (length - rows) + rows * (rows + 1) / 2;
        Self::new(4 * pairs * heads * head_dim, move || {
            let inputs = AttentionInputs {
                shape: &shape,
                norms: None,
                angles: &angles,
                qkv: &qkv,
                chunks: std::slice::from_ref(&chunk),
            };
            attention::attend(arch, &inputs, &kv, &mut out);
        })
    }

    /// Creates a benchmark of the head: log-probabilities of `rows` tokens over a vocabulary of `vocabulary` tokens.
    ///
    /// # Errors
    ///
    /// Returns an error if the threads cannot be started.
    pub fn head(
        rows: usize,
        depth: usize,
        vocabulary: usize,
        weights: WeightDtype,
        activations: ActivationDtype,
    ) -> Result<Self, LoadError> {
        let compute = best_compute(activations)?;
        let (hidden, weights) = (sample_panels(rows, depth), sample_weights(vocabulary, depth, weights));
        let chunks = head::vocab_chunks(std::slice::from_ref(&(0..panels_for(vocabulary))));
        let score = |row: usize| ScoreRow {
            from: Hidden::Row(row),
            choice: TokenChoice::Given((row % vocabulary) as u32),
            options: PositionOptions::default(),
        };
        let targets: Vec<ScoreRow> = (0..rows).map(score).collect();
        Self::new(2 * rows * depth * vocabulary, move || {
            let head = Head { compute, weights: &weights, chunks: &chunks, vocab_size: vocabulary };
            let _ = head.scores(&hidden, &targets, &mut None);
        })
    }

    /// Creates a benchmark of rotary embedding on one core: the angles of `rows` positions and the rotation of `heads`
    /// vectors per row, as attention rotates the rows of each tile.
    ///
    /// # Errors
    ///
    /// Returns an error if the threads cannot be started.
    pub fn rotation(rows: usize, heads: usize, head_dim: usize) -> Result<Self, LoadError> {
        let rope = Rope::scaled(RopeScaling::Default, 10_000.0, head_dim);
        let chunk = Chunk { rows: 0..rows, start: 0, blocks: Vec::new() };
        let mut head = sample_panels(1, head_dim).all().to_vec();
        Self::new(3 * rows * heads * head_dim, move || {
            let angles = rope.angles(std::slice::from_ref(&chunk));
            for row in (0..rows).flat_map(|row| std::iter::repeat_n(row, heads)) {
                angles.rotate(row, &mut head);
            }
        })
    }

    /// Creates a benchmark of RMSNorm and SwiGLU on `rows` rows: three reads and two writes of `columns` values each.
    ///
    /// # Errors
    ///
    /// Returns an error if the threads cannot be started.
    pub fn elementwise(rows: usize, columns: usize) -> Result<Self, LoadError> {
        let arch = best_compute(ActivationDtype::F32)?.arch;
        let x = sample_panels(rows, columns);
        let (mut gate, mut normed) = (x.clone(), PanelMatrix::default());
        let weight = x.all()[..panels_for(columns)].to_vec();
        Self::new(0, move || {
            math::rms_norm(arch, &x, columns, 1e-5, &weight, &mut normed);
            let panels = gate.panels();
            math::silu_mul(arch, gate.split_mut(panels).0, normed.all());
        })
    }
}

fn best_compute(activations: ActivationDtype) -> Result<ComputeMode, LoadError> {
    Instructions::Best.compute(activations).ok_or_else(|| LoadError::Instructions(format!("{:?}", Instructions::Best)))
}

/// Returns a pseudorandom value between -1 and 1.
fn sample_value(i: usize) -> f32 {
    (i.wrapping_mul(2_654_435_761) % 2048) as f32 / 1024.0 - 1.0
}

fn sample_panels(rows: usize, columns: usize) -> PanelMatrix {
    let mut panels = PanelMatrix::zeros(rows, panels_for(columns));
    for panel in 0..panels.panels() {
        for row in 0..rows {
            *panels.row_mut(panel, row) =
                std::array::from_fn(|k| sample_value((row * columns + panel * PANEL_WIDTH) + k));
        }
    }
    panels
}

fn sample_weights(outputs: usize, depth: usize, weight_dtype: WeightDtype) -> PackedMatrix {
    let mut weights = PackedMatrix::zeros(weight_dtype, outputs, depth);
    let rows: Vec<f32> = (0..outputs * depth).map(sample_value).collect();
    weights.pack_rows(&rows, depth, |n| n, |k| k);
    weights
}
