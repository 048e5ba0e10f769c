//! A Llama model's forward pass as kernel launches and matrix products in one queue. The host waits for results only to
//! sample tokens and to read the scores.

// Kernels trust the addresses in their launches. Each address belongs to a region that is large enough for the launch,
// and the plan has checked all indices.
#![allow(unsafe_code)]

use surprisal_kernels::attention::{PagedAttention, PagedDecode, PagedKv, decode_splits, decode_workspace};
use surprisal_kernels::rows::{Embedding, Fp8Quantize, RankSum, RmsNorm, SiluMul, WriteKv};
use surprisal_kernels::{Address, Error, Launch};

use super::accelerator::Accelerator;
use super::batch_plan::{AttentionLaunch, BatchPlan, Capacity};
use super::gemm::{Gemm, GemmScales};
use super::graph_cache::GraphCache;
use super::kv_cache::PagedCache;
use super::memory::{DeviceRegion, int_bytes, int_region};
use super::model_shape::ModelShape;
use super::weights::{DeviceLayer, DeviceLinear, DeviceWeights};
use super::workspace::Workspace;
use crate::backend::{BLOCK_TOKENS, BackendError, TokenScore};

/// The result of queueing work.
pub(super) type QueueResult = Result<(), BackendError>;

/// A forward pass, with everything that it reads and writes.
pub(super) struct ForwardPass<'a, A> {
    pub(super) device: &'a mut A,
    pub(super) shape: &'a ModelShape,
    pub(super) capacity: &'a Capacity,
    pub(super) weights: &'a DeviceWeights,
    pub(super) work: &'a Workspace,
    pub(super) cache: &'a PagedCache,
    pub(super) plan: &'a BatchPlan,
}

/// Rows `first..first + count` of a matrix with `total` rows.
#[derive(Clone, Copy)]
pub(super) struct RowTable {
    pub(super) rows: DeviceRegion,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) total: usize,
}

impl<A: Accelerator> ForwardPass<'_, A> {
    /// Runs the batch, stores the hidden states that the plan keeps, and returns the scores.
    pub(super) fn run(&mut self, graphs: &mut GraphCache<A::Recording>) -> Result<Vec<TokenScore>, BackendError> {
        self.device.write(self.work.ints, &int_bytes(&self.plan.ints))?;
        let rows = self.plan.tokens.len();
        if rows > 0 {
            let &mut Self { ref mut device, shape, capacity, weights, work, cache, plan } = self;
            let layers =
                |device: &mut A| ForwardPass { device, shape, capacity, weights, work, cache, plan }.queue_layers(rows);
            graphs.run(*device, plan, layers)?;
        }
        // Overwrite kept states last, because scores read the states that earlier batches kept.
        let tokens = self.queue_scores()?;
        let row = self.shape.hidden * 2;
        for &(from, block) in &self.plan.kept_states {
            let from = self.cache.hidden.subregion((self.capacity.blocks + from) * row, row)?;
            self.device.copy(from, self.cache.hidden.subregion(block * row, row)?)?;
        }
        self.read_scores(tokens)
    }

    /// Queues all layers, which read the plan's integers and write normalized hidden states to
    /// [`batch_states`](Self::batch_states).
    fn queue_layers(&mut self, rows: usize) -> QueueResult {
        self.queue_embed(rows)?;
        let work = self.work;
        let normed = self.batch_states()?;
        for (index, layer) in self.weights.layers.iter().enumerate() {
            self.queue_rms_norm(layer.attention_norm, if index == 0 { None } else { Some(work.delta) }, normed, rows)?;
            self.queue_linear(work.qkv, normed, &layer.qkv, rows)?;
            self.queue_write_kv(layer, index, rows)?;
            self.queue_prefill(index)?;
            self.queue_decode(index)?;
            self.queue_linear(work.delta, work.attended, &layer.output, rows)?;
            self.queue_rank_sum(rows)?;
            self.queue_rms_norm(layer.mlp_norm, Some(work.delta), normed, rows)?;
            self.queue_linear(work.gate_up, normed, &layer.gate_up, rows)?;
            self.queue_silu_mul(rows)?;
            self.queue_linear(work.delta, work.inner, &layer.down, rows)?;
            self.queue_rank_sum(rows)?;
        }
        self.queue_rms_norm(self.weights.norm, Some(work.delta), normed, rows)
    }

    /// Returns the region of the hidden states of this batch's rows. It follows the hidden states of the blocks in the
    /// cache.
    fn batch_states(&self) -> Result<DeviceRegion, BackendError> {
        let row = self.shape.hidden * 2;
        let first = self.capacity.blocks * row;
        self.cache.hidden.subregion(first, self.cache.hidden.bytes() - first)
    }

    /// Returns the address of some of the plan's integers.
    pub(super) fn ints(&self, range: &std::ops::Range<usize>) -> Result<Address, BackendError> {
        int_region(self.work.ints, range.start, range.len())?.checked_address(range.len() * 4)
    }

    pub(super) fn launch<T: Copy + Send + 'static>(&mut self, launch: Result<Launch<T>, Error>) -> QueueResult {
        // SAFETY: the addresses of every launch belong to regions that hold everything that the launch reads and
        // writes, regions live as long as the device, and ids, slots, tables and positions come from a checked plan.
        unsafe { self.device.launch(&launch?) }
    }

    /// Queues the embedding of the batch's tokens. A rank contributes zeros for tokens whose embedding rows are on
    /// other ranks.
    fn queue_embed(&mut self, rows: usize) -> QueueResult {
        let (work, vocab) = (self.work, &self.shape.ranges.vocab);
        let table =
            RowTable { rows: self.weights.embedding, first: vocab.start, count: vocab.len(), total: self.shape.vocab };
        let tokens = self.ints(&self.plan.tokens)?;
        if self.shape.slice.size == 1 {
            return self.queue_gather_rows(work.residual, table, tokens, rows);
        }
        self.queue_gather_rows(work.delta, table, tokens, rows)?;
        self.queue_rank_sum(rows)?;
        let bytes = rows * self.shape.hidden * 2;
        self.device.copy(work.delta, work.residual.subregion(0, bytes)?)
    }

    /// Queues the sum of all ranks' `delta`. Each rank sums one slice. A value's bits do not depend on its position.
    fn queue_rank_sum(&mut self, rows: usize) -> QueueResult {
        let (ranks, slice) = (self.shape.slice.size, self.shape.rank_sum_bytes(rows));
        if ranks == 1 {
            return Ok(());
        }
        let all = self.work.delta.subregion(0, ranks * slice)?;
        let addends = self.work.addends.subregion(0, ranks * slice)?;
        self.device.exchange(all, addends)?;
        let args = RankSum {
            out: all.slice(self.shape.slice.rank, ranks)?.checked_address(slice)?,
            parts: addends.checked_address(ranks * slice)?,
            n: (slice / 2) as u32,
            ranks: ranks as u32,
        };
        self.launch(args.launch())?;
        self.device.gather(all)
    }

    /// Queues a gather of rows by index. A row is as wide as the residual stream.
    pub(super) fn queue_gather_rows(
        &mut self,
        out: DeviceRegion,
        table: RowTable,
        ids: Address,
        rows: usize,
    ) -> QueueResult {
        let row = self.shape.hidden * 2;
        let args = Embedding {
            out: out.checked_address(rows * row)?,
            table: table.rows.checked_address(table.count * row)?,
            ids,
            n: self.shape.hidden as u32,
            first: table.first as u32,
            count: table.count as u32,
            vocabulary: table.total as u32,
        };
        self.launch(args.launch(rows as u32))
    }

    /// Queues the addition of `added`, if any, to the residual stream, and the norm of the sum.
    fn queue_rms_norm(
        &mut self,
        weight: DeviceRegion,
        added: Option<DeviceRegion>,
        out: DeviceRegion,
        rows: usize,
    ) -> QueueResult {
        let bytes = rows * self.shape.hidden * 2;
        let residual = self.work.residual.checked_address(bytes)?;
        let args = RmsNorm {
            out: out.checked_address(bytes)?,
            x: added.map_or(Ok(residual), |added| added.checked_address(bytes))?,
            residual: if added.is_some() { residual } else { Address::NULL },
            weight: weight.checked_address(self.shape.hidden * 2)?,
            n: self.shape.hidden as u32,
            epsilon: self.shape.eps,
        };
        self.launch(args.launch(rows as u32))
    }

    /// Queues a linear layer. In FP8, `x` is quantized first.
    fn queue_linear(&mut self, out: DeviceRegion, x: DeviceRegion, linear: &DeviceLinear, rows: usize) -> QueueResult {
        let &DeviceLinear { weights, scales, bias, n, k } = linear;
        let (Some(columns), Some(limit)) = (scales, self.shape.fp8) else {
            return self.device.multiply(&Gemm { out, x, weights, bias, rows, n, k, out_f32: false, scales: None });
        };
        let Workspace { quantized, row_scales, .. } = *self.work;
        let args = Fp8Quantize {
            out: quantized.checked_address(rows * k)?,
            scales: row_scales.checked_address(rows * 4)?,
            x: x.checked_address(rows * k * 2)?,
            n: k as u32,
            limit,
        };
        self.launch(args.launch(rows as u32))?;
        let scales = Some(GemmScales { rows: row_scales, columns });
        self.device.multiply(&Gemm { out, x: quantized, weights, bias, rows, n, k, out_f32: false, scales })
    }

    /// Queues the normalization and rotation of queries and keys, and the writes of keys and values to the cache.
    fn queue_write_kv(&mut self, layer: &DeviceLayer, index: usize, rows: usize) -> QueueResult {
        let (shape, work) = (self.shape, self.work);
        let [keys, values, key_scales, value_scales] = self.cache.layers[index].addresses()?;
        let norm = |norm: Option<DeviceRegion>| {
            norm.map_or(Ok(Address::NULL), |norm| norm.checked_address(shape.padded_head_dim * 2))
        };
        let args = WriteKv {
            queries: work.queries.checked_address(rows * shape.query_columns() * 2)?,
            keys,
            values,
            key_scales,
            value_scales,
            qkv: work.qkv.checked_address(rows * shape.qkv_columns() * 2)?,
            cos_sin: self.weights.cos_sin.checked_address(shape.max_length * shape.padded_head_dim * 4)?,
            positions: self.ints(&self.plan.positions)?,
            slots: self.ints(&self.plan.slots)?,
            query_norm: norm(layer.head_norms.map(|norms| norms.0))?,
            key_norm: norm(layer.head_norms.map(|norms| norms.1))?,
            heads: shape.heads as u32,
            kv_heads: shape.kv_heads as u32,
            epsilon: shape.eps * shape.head_fill_ratio(),
        };
        self.launch(args.launch(rows as u32, shape.padded_head_dim as u32))
    }

    /// Returns a layer's keys and values in the form in which attention reads them, through the launch's block tables.
    fn layer_kv(&self, index: usize, launch: &AttentionLaunch) -> Result<PagedKv, BackendError> {
        let [keys, values, key_scales, value_scales] = self.cache.layers[index].addresses()?;
        Ok(PagedKv {
            keys,
            values,
            key_scales,
            value_scales,
            table: self.ints(&launch.table)?,
            contexts: self.ints(&launch.contexts)?,
            table_width: launch.table_width as u32,
            block_size: BLOCK_TOKENS as u32,
            kv_heads: self.shape.kv_heads as u32,
        })
    }

    /// Queues attention for the chunks of several tokens.
    fn queue_prefill(&mut self, index: usize) -> QueueResult {
        let (shape, work) = (self.shape, self.work);
        let AttentionLaunch { rows, sequences, starts, tiles, .. } = &self.plan.prefill;
        if *sequences == 0 {
            return Ok(());
        }
        let args = PagedAttention {
            out: work.attended.checked_address(rows.end * shape.query_columns() * 2)?,
            q: work.queries.checked_address(rows.end * shape.query_columns() * 2)?,
            cache: self.layer_kv(index, &self.plan.prefill)?,
            starts: self.ints(starts)?,
            tiles: self.ints(tiles)?,
            heads: shape.heads as u32,
            window: shape.window,
            scale: self.scale(),
        };
        self.launch(args.launch(shape.padded_head_dim as u32, tiles.len() as u32 / 2))
    }

    /// Queues attention for the single tokens.
    fn queue_decode(&mut self, index: usize) -> QueueResult {
        let (shape, work) = (self.shape, self.work);
        let AttentionLaunch { rows, sequences, table_width, .. } = &self.plan.decode;
        if *sequences == 0 {
            return Ok(());
        }
        let row = shape.query_columns() * 2;
        let decode_rows = |region: DeviceRegion| {
            region.subregion(rows.start * row, rows.len() * row)?.checked_address(rows.len() * row)
        };
        let splits = decode_splits((table_width * BLOCK_TOKENS) as u32);
        let parts = decode_workspace(shape.padded_head_dim as u32, shape.heads as u32, *sequences as u32, splits);
        let args = PagedDecode {
            parts: work.decode_parts.checked_address(parts * 4)?,
            q: decode_rows(work.queries)?,
            cache: self.layer_kv(index, &self.plan.decode)?,
            heads: shape.heads as u32,
            window: shape.window,
            splits,
            scale: self.scale(),
        };
        self.launch(args.launch(shape.padded_head_dim as u32, *sequences as u32))?;
        self.launch(args.combine(decode_rows(work.attended)?, shape.padded_head_dim as u32, *sequences as u32))
    }

    fn queue_silu_mul(&mut self, rows: usize) -> QueueResult {
        let mlp = self.shape.mlp;
        let args = SiluMul {
            out: self.work.inner.checked_address(rows * mlp * 2)?,
            gate_up: self.work.gate_up.checked_address(rows * 2 * mlp * 2)?,
            n: mlp as u32,
        };
        self.launch(args.launch(rows as u32))
    }

    /// Returns the scale of attention scores, `1/sqrt(head dim)`.
    fn scale(&self) -> f32 {
        (1.0 / (self.shape.head_dim as f64).sqrt()) as f32
    }
}
