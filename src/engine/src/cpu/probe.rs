//! The CPU's kernels alone, on made-up operands, for benchmarks to time.

use surprisal_model::RopeScaling;

use super::attention::{self, Inputs, Shape};
use super::head::{self, Head};
use super::kv::LayerKv;
use super::matrix::{Compute, Write, multiply};
use super::panels::{PANEL, Panels, panels_for};
use super::pool::Pool;
use super::rope::{Angles, Rope};
use super::weights::{WeightType, Weights};
use super::{Activations, Instructions, LoadError, math};
use crate::backend::{BLOCK_TOKENS, BlockId, Chunk, Hidden, ScoreRow, TokenChoice};
use crate::scorer::PositionOptions;

/// One kernel and its operands.
pub struct Probe {
    pool: Pool,
    operations: f64,
    kernel: Box<dyn FnMut() + Send>,
}

impl Probe {
    /// Runs the kernel once, on all cores.
    pub fn run(&mut self) {
        self.pool.install(&mut self.kernel);
    }

    /// Multiplications and additions of one run, without those of softmax.
    pub fn operations(&self) -> f64 {
        self.operations
    }

    fn new(operations: usize, kernel: impl FnMut() + Send + 'static) -> Result<Self, LoadError> {
        let pool = Pool::new(0, "surprisal-probe".to_owned())?;
        Ok(Self { pool, operations: operations as f64, kernel: Box::new(kernel) })
    }

    /// `[rows][depth] * [outputs][depth]^T`.
    ///
    /// # Errors
    ///
    /// The threads could not be started.
    pub fn product(
        rows: usize,
        depth: usize,
        outputs: usize,
        weights: WeightType,
        activations: Activations,
    ) -> Result<Self, LoadError> {
        let compute = best(activations)?;
        let weights = packed(outputs, depth, weights);
        let (a, mut out) = (filled(rows, depth), Panels::zeros(rows, weights.panels()));
        Self::new(2 * rows * depth * outputs, move || multiply(compute, &a, &weights, &mut out, Write::Set))
    }

    /// Causal attention of a text's last `rows` tokens over all of its `length`, in f32.
    ///
    /// # Errors
    ///
    /// The threads could not be started.
    pub fn attention(
        rows: usize,
        length: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
    ) -> Result<Self, LoadError> {
        let arch = best(Activations::F32)?.arch;
        let head_panels = panels_for(head_dim);
        let shape = Shape { heads, kv_heads, head_dim, head_panels, window: usize::MAX, eps: 1e-5 };
        let blocks = length.div_ceil(BLOCK_TOKENS);
        let mut kv = LayerKv::new(blocks, kv_heads, head_panels);
        let values: Vec<_> = filled(1, head_dim).all().to_vec();
        let ids: Vec<BlockId> = (0..blocks as BlockId).collect();
        for mut block in kv.blocks_mut(&ids) {
            for (slot, head) in (0..BLOCK_TOKENS).flat_map(|slot| (0..kv_heads).map(move |head| (slot, head))) {
                block.write(slot, head, &values, &values);
            }
        }
        let chunk = Chunk { rows: 0..rows, start: length - rows, blocks: ids };
        let angles = Angles::still(rows, head_dim);
        let qkv = filled(rows, (heads + 2 * kv_heads) * head_panels * PANEL);
        let mut out = Panels::default();
        let pairs = rows * (length - rows) + rows * (rows + 1) / 2;
        Self::new(4 * pairs * heads * head_dim, move || {
            let inputs =
                Inputs { shape: &shape, norms: None, angles: &angles, qkv: &qkv, chunks: std::slice::from_ref(&chunk) };
            attention::attend(arch, &inputs, &kv, &mut out);
        })
    }

    /// Log-probabilities of `rows` tokens of a vocabulary.
    ///
    /// # Errors
    ///
    /// The threads could not be started.
    pub fn head(
        rows: usize,
        depth: usize,
        vocabulary: usize,
        weights: WeightType,
        activations: Activations,
    ) -> Result<Self, LoadError> {
        let compute = best(activations)?;
        let (hidden, weights) = (filled(rows, depth), packed(vocabulary, depth, weights));
        let chunks = head::chunks(std::slice::from_ref(&(0..panels_for(vocabulary))));
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

    /// The rotary angles of `rows` positions, and `heads` vectors a row turned by them, on one core: attention turns each tile's where
    /// it reads them.
    ///
    /// # Errors
    ///
    /// The threads could not be started.
    pub fn rotation(rows: usize, heads: usize, head_dim: usize) -> Result<Self, LoadError> {
        let rope = Rope::scaled(RopeScaling::Default, 10_000.0, head_dim);
        let chunk = Chunk { rows: 0..rows, start: 0, blocks: Vec::new() };
        let mut head = filled(1, head_dim).all().to_vec();
        Self::new(3 * rows * heads * head_dim, move || {
            let angles = rope.angles(std::slice::from_ref(&chunk));
            for row in (0..rows).flat_map(|row| std::iter::repeat_n(row, heads)) {
                angles.rotate(row, &mut head);
            }
        })
    }

    /// RMSNorm and SwiGLU of `rows` rows: three reads and two writes of `columns` values each.
    ///
    /// # Errors
    ///
    /// The threads could not be started.
    pub fn elementwise(rows: usize, columns: usize) -> Result<Self, LoadError> {
        let arch = best(Activations::F32)?.arch;
        let x = filled(rows, columns);
        let (mut gate, mut normed) = (x.clone(), Panels::default());
        let weight = x.all()[..panels_for(columns)].to_vec();
        Self::new(0, move || {
            math::rms_norm(arch, &x, columns, 1e-5, &weight, &mut normed);
            let panels = gate.panels();
            math::silu_mul(arch, gate.split_mut(panels).0, normed.all());
        })
    }
}

fn best(activations: Activations) -> Result<Compute, LoadError> {
    Instructions::Best.compute(activations).ok_or(LoadError::Instructions(Instructions::Best))
}

/// Values between -1 and 1 that differ.
fn value(i: usize) -> f32 {
    (i.wrapping_mul(2_654_435_761) % 2048) as f32 / 1024.0 - 1.0
}

fn filled(rows: usize, columns: usize) -> Panels {
    let mut panels = Panels::zeros(rows, panels_for(columns));
    for panel in 0..panels.panels() {
        for row in 0..rows {
            *panels.row_mut(panel, row) = std::array::from_fn(|k| value((row * columns + panel * PANEL) + k));
        }
    }
    panels
}

fn packed(outputs: usize, depth: usize, kind: WeightType) -> Weights {
    let mut weights = Weights::zeros(kind, outputs, depth);
    let rows: Vec<f32> = (0..outputs * depth).map(value).collect();
    weights.set_rows(&rows, depth, |n| n, |k| k);
    weights
}
