//! A Llama's forward pass as launches and products in one queue; nothing waits until the answers are read.

// Launches trust their addresses: each is of a region that holds what its shape says, and indices were checked by the plan.
#![allow(unsafe_code)]

use surprisal_kernels::attention::{PagedAttention, PagedDecode, decode_splits, decode_workspace};
use surprisal_kernels::rows::{Embedding, Fp8Quantize, KvCache, RankSum, RmsNorm, SiluMul};
use surprisal_kernels::{Address, Error, Launch};

use super::accelerator::{Accelerator, Product, Region, Scales};
use super::graphs::Graphs;
use super::plan::{Group, Plan, Room};
use super::shape::Shape;
use super::weights::{Layer, Linear, Weights, int_bytes, ints};
use super::workspace::{Cache, Workspace};
use crate::backend::{BLOCK_TOKENS, BackendError, TokenScore};

pub(super) type Done = Result<(), BackendError>;

/// Everything a pass reads and writes.
pub(super) struct Pass<'a, A> {
    pub(super) device: &'a mut A,
    pub(super) shape: &'a Shape,
    pub(super) room: &'a Room,
    pub(super) weights: &'a Weights,
    pub(super) work: &'a Workspace,
    pub(super) cache: &'a Cache,
    pub(super) plan: &'a Plan,
}

/// Rows `first..first + count` of `of`.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) rows: Region,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) of: usize,
}

impl<A: Accelerator> Pass<'_, A> {
    /// Runs the plan's tokens, keeps hidden states, and returns what was asked for.
    pub(super) fn run(&mut self, graphs: &mut Graphs<A::Recording>) -> Result<Vec<TokenScore>, BackendError> {
        self.device.write(self.work.ints, &int_bytes(&self.plan.ints))?;
        let rows = self.plan.tokens.len();
        if rows > 0 {
            let &mut Self { ref mut device, shape, room, weights, work, cache, plan } = self;
            let layers = |device: &mut A| Pass { device, shape, room, weights, work, cache, plan }.layers(rows);
            graphs.run(*device, plan, layers)?;
        }
        // What is kept is kept after what was kept before is read.
        let tokens = self.score()?;
        let row = self.shape.hidden * 2;
        for &(from, block) in &self.plan.keep {
            let from = self.cache.hidden.part((self.room.blocks + from) * row, row)?;
            self.device.copy(from, self.cache.hidden.part(block * row, row)?)?;
        }
        self.answers(tokens)
    }

    /// From the plan's integers to normed hidden states in the hidden store's last rows.
    fn layers(&mut self, rows: usize) -> Done {
        self.embed(rows)?;
        let work = self.work;
        let normed = self.batch_states()?;
        for (index, layer) in self.weights.layers.iter().enumerate() {
            self.norm(layer.attention_norm, if index == 0 { None } else { Some(work.delta) }, normed, rows)?;
            self.product(work.qkv, normed, &layer.qkv, rows)?;
            self.write_kv(layer, index, rows)?;
            self.prefill(index)?;
            self.decode(index)?;
            self.product(work.delta, work.attended, &layer.output, rows)?;
            self.sum_ranks(rows)?;
            self.norm(layer.mlp_norm, Some(work.delta), normed, rows)?;
            self.product(work.gate_up, normed, &layer.gate_up, rows)?;
            self.silu_mul(rows)?;
            self.product(work.delta, work.inner, &layer.down, rows)?;
            self.sum_ranks(rows)?;
        }
        self.norm(self.weights.norm, Some(work.delta), normed, rows)
    }

    /// The part of the hidden store that is of this batch's rows.
    fn batch_states(&self) -> Result<Region, BackendError> {
        let row = self.shape.hidden * 2;
        let first = self.room.blocks * row;
        self.cache.hidden.part(first, self.cache.hidden.bytes() - first)
    }

    pub(super) fn ints(&self, range: &std::ops::Range<usize>) -> Result<Address, BackendError> {
        ints(self.work.ints, range.start, range.len())?.holding(range.len() * 4)
    }

    pub(super) fn launch<T: Copy + Send + 'static>(&mut self, launch: Result<Launch<T>, Error>) -> Done {
        // SAFETY: the addresses in every launch of this file are of regions that hold what the launch's shape reads and
        // writes, regions live as long as the device, and ids, slots, tables and positions come from a checked plan.
        unsafe { self.device.launch(&launch?) }
    }

    /// Embeddings of the batch's tokens into `residual`. Of those whose rows it does not have, a rank adds zeros.
    fn embed(&mut self, rows: usize) -> Done {
        let (work, own) = (self.work, &self.shape.own.vocab);
        let table = Table { rows: self.weights.embedding, first: own.start, count: own.len(), of: self.shape.vocab };
        let tokens = self.ints(&self.plan.tokens)?;
        if self.shape.part.size == 1 {
            return self.gather(work.residual, table, tokens, rows);
        }
        self.gather(work.delta, table, tokens, rows)?;
        self.sum_ranks(rows)?;
        let bytes = rows * self.shape.hidden * 2;
        self.device.copy(work.delta, work.residual.part(0, bytes)?)
    }

    /// Makes of what ranks have in `delta` their sum, each rank a slice of it; a value's bits are its own wherever it lies.
    fn sum_ranks(&mut self, rows: usize) -> Done {
        let (ranks, slice) = (self.shape.part.size, self.shape.sum_slice(rows));
        if ranks == 1 {
            return Ok(());
        }
        let all = self.work.delta.part(0, ranks * slice)?;
        let addends = self.work.addends.part(0, ranks * slice)?;
        self.device.exchange(all, addends)?;
        let args = RankSum {
            out: all.slice(self.shape.part.rank, ranks)?.holding(slice)?,
            parts: addends.holding(ranks * slice)?,
            n: (slice / 2) as u32,
            ranks: ranks as u32,
        };
        self.launch(args.launch())?;
        self.device.gather(all)
    }

    /// Rows of a matrix as wide as the residual stream, by their indices.
    pub(super) fn gather(&mut self, out: Region, table: Table, ids: Address, rows: usize) -> Done {
        let row = self.shape.hidden * 2;
        let args = Embedding {
            out: out.holding(rows * row)?,
            table: table.rows.holding(table.count * row)?,
            ids,
            n: self.shape.hidden as u32,
            first: table.first as u32,
            count: table.count as u32,
            vocabulary: table.of as u32,
        };
        self.launch(args.launch(rows as u32))
    }

    /// The residual stream's norm, after `added` was added to it.
    fn norm(&mut self, weight: Region, added: Option<Region>, out: Region, rows: usize) -> Done {
        let bytes = rows * self.shape.hidden * 2;
        let residual = self.work.residual.holding(bytes)?;
        let args = RmsNorm {
            out: out.holding(bytes)?,
            x: added.map_or(Ok(residual), |added| added.holding(bytes))?,
            residual: if added.is_some() { residual } else { Address::NULL },
            weight: weight.holding(self.shape.hidden * 2)?,
            n: self.shape.hidden as u32,
            epsilon: self.shape.eps,
        };
        self.launch(args.launch(rows as u32))
    }

    fn product(&mut self, out: Region, x: Region, linear: &Linear, rows: usize) -> Done {
        let &Linear { weights, scales, bias, n, k } = linear;
        let (Some(columns), Some(limit)) = (scales, self.shape.fp8) else {
            return self.device.multiply(&Product { out, x, weights, bias, rows, n, k, wide: false, scales: None });
        };
        let Workspace { quantized, row_scales, .. } = *self.work;
        let args = Fp8Quantize {
            out: quantized.holding(rows * k)?,
            scales: row_scales.holding(rows * 4)?,
            x: x.holding(rows * k * 2)?,
            n: k as u32,
            limit,
        };
        self.launch(args.launch(rows as u32))?;
        let scales = Some(Scales { rows: row_scales, columns });
        self.device.multiply(&Product { out, x: quantized, weights, bias, rows, n, k, wide: false, scales })
    }

    fn write_kv(&mut self, layer: &Layer, index: usize, rows: usize) -> Done {
        let (shape, work) = (self.shape, self.work);
        let [keys, values, key_scales, value_scales] = self.cache.layers[index].addresses()?;
        let norm = |norm: Option<Region>| norm.map_or(Ok(Address::NULL), |norm| norm.holding(shape.head * 2));
        let args = KvCache {
            queries: work.queries.holding(rows * shape.queries() * 2)?,
            keys,
            values,
            key_scales,
            value_scales,
            qkv: work.qkv.holding(rows * shape.qkv() * 2)?,
            cos_sin: self.weights.cos_sin.holding(shape.max_length * shape.head * 4)?,
            positions: self.ints(&self.plan.positions)?,
            slots: self.ints(&self.plan.slots)?,
            query_norm: norm(layer.head_norms.map(|norms| norms.0))?,
            key_norm: norm(layer.head_norms.map(|norms| norms.1))?,
            heads: shape.heads as u32,
            kv_heads: shape.kv_heads as u32,
            epsilon: shape.eps * shape.filled(),
        };
        self.launch(args.launch(rows as u32, shape.head as u32))
    }

    fn prefill(&mut self, index: usize) -> Done {
        let (shape, work) = (self.shape, self.work);
        let Group { rows, sequences, table, table_width, contexts, starts, tiles, .. } = &self.plan.prefill;
        if *sequences == 0 {
            return Ok(());
        }
        let [keys, values, key_scales, value_scales] = self.cache.layers[index].addresses()?;
        let args = PagedAttention {
            out: work.attended.holding(rows.end * shape.queries() * 2)?,
            q: work.queries.holding(rows.end * shape.queries() * 2)?,
            keys,
            values,
            key_scales,
            value_scales,
            table: self.ints(table)?,
            contexts: self.ints(contexts)?,
            starts: self.ints(starts)?,
            tiles: self.ints(tiles)?,
            table_width: *table_width as u32,
            block_size: BLOCK_TOKENS as u32,
            heads: shape.heads as u32,
            kv_heads: shape.kv_heads as u32,
            window: shape.window,
            scale: self.scale(),
        };
        self.launch(args.launch(shape.head as u32, tiles.len() as u32 / 2))
    }

    fn decode(&mut self, index: usize) -> Done {
        let (shape, work) = (self.shape, self.work);
        let Group { rows, sequences, table, table_width, contexts, .. } = &self.plan.decode;
        if *sequences == 0 {
            return Ok(());
        }
        let [keys, values, key_scales, value_scales] = self.cache.layers[index].addresses()?;
        let row = shape.queries() * 2;
        let here = |region: Region| region.part(rows.start * row, rows.len() * row)?.holding(rows.len() * row);
        let splits = decode_splits((table_width * BLOCK_TOKENS) as u32);
        let parts = decode_workspace(shape.head as u32, shape.heads as u32, *sequences as u32, splits);
        let args = PagedDecode {
            parts: work.parts.holding(parts * 4)?,
            q: here(work.queries)?,
            keys,
            values,
            key_scales,
            value_scales,
            table: self.ints(table)?,
            contexts: self.ints(contexts)?,
            table_width: *table_width as u32,
            block_size: BLOCK_TOKENS as u32,
            heads: shape.heads as u32,
            kv_heads: shape.kv_heads as u32,
            window: shape.window,
            splits,
            scale: self.scale(),
        };
        self.launch(args.launch(shape.head as u32, *sequences as u32))?;
        self.launch(args.combine(here(work.attended)?, shape.head as u32, *sequences as u32))
    }

    fn silu_mul(&mut self, rows: usize) -> Done {
        let mlp = self.shape.mlp;
        let args = SiluMul {
            out: self.work.inner.holding(rows * mlp * 2)?,
            gate_up: self.work.gate_up.holding(rows * 2 * mlp * 2)?,
            n: mlp as u32,
        };
        self.launch(args.launch(rows as u32))
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.shape.head_dim as f64).sqrt()) as f32
    }
}
