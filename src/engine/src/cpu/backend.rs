//! `CpuBackend`: loads a model, or one rank's slice of it, and runs batches.

use std::collections::BTreeMap;

use pulp::Arch;
use surprisal_model::Checkpoint;

use super::compute::{ComputeMode, VectorBits};
use super::config::CpuConfig;
use super::head::Head;
use super::kv::{self, HiddenStore, LayerKv};
use super::llama::{Llama, Scratch};
use super::packed_matrix::WeightDtype;
use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, panels_for};
use super::pool::Pool;
use crate::backend::{BLOCK_TOKENS, Backend, BackendError, ForwardBatch, Hidden, Limits, TokenScore};
use crate::load_error::LoadError;
use crate::parallel::communicator::{Communicator, RankCommunicator, RankLost, ThreadCommunicator};
use crate::parallel::group::TensorParallelGroup;
use crate::parallel::rank_slice::{RankSlice, VOCAB_GRANULE};

// A rank's slice of the vocabulary consists of whole panels.
const _: () = assert!(VOCAB_GRANULE == PANEL_WIDTH);

/// Version of the numerics; increased whenever a code change alters bits.
const NUMERICS_VERSION: u32 = 2;

/// A Llama model on the CPU, or one rank's slice of it.
#[derive(Debug)]
pub struct CpuBackend {
    compute: ComputeMode,
    model: Llama,
    communicator: RankCommunicator,
    kv: Vec<LayerKv>,
    hidden: HiddenStore,
    limits: Limits,
    fingerprint: String,
    scratch: Scratch,
    pool: Pool,
}

impl CpuBackend {
    /// Loads a checkpoint and allocates its KV cache.
    ///
    /// # Errors
    /// Returns an error if the checkpoint is invalid, if the machine lacks the instructions that `config` requests, if
    /// the KV cache cannot be allocated or is too small for one block, or if the threads cannot be started.
    pub fn load(checkpoint: &Checkpoint, config: CpuConfig) -> Result<Self, LoadError> {
        Self::load_rank(checkpoint, config, None, &checkpoint.fingerprint()?)
    }

    /// Loads a checkpoint as `ranks` slices. Each rank has its own thread and reads only its own slice. The ranks share
    /// the compute threads and the cache memory that `config` sets.
    ///
    /// # Errors
    /// Returns the same errors as [`load`](Self::load).
    pub fn load_group(
        checkpoint: &Checkpoint,
        config: CpuConfig,
        ranks: usize,
    ) -> Result<TensorParallelGroup, LoadError> {
        let ranks = ThreadCommunicator::group(ranks.max(1));
        Self::load_group_over(checkpoint, config, ranks.into_iter().map(|rank| Box::new(rank) as _).collect())
    }

    /// Loads a group like [`load_group`](Self::load_group), but over the given communicators.
    ///
    /// # Errors
    /// Returns the same errors as [`load`](Self::load).
    pub fn load_group_over(
        checkpoint: &Checkpoint,
        config: CpuConfig,
        ranks: Vec<Box<dyn Communicator>>,
    ) -> Result<TensorParallelGroup, LoadError> {
        // Check the whole cache first: a system that overcommits memory would grant each rank's smaller piece.
        check_memory(&config, config.cache_bytes)?;
        let weights_hash = checkpoint.fingerprint()?;
        let load = |rank| Self::load_rank(checkpoint, config, Some(rank), &weights_hash);
        let backends = TensorParallelGroup::load_ranks(ranks, load)?;
        let first = backends.first().map(|first| (first.fingerprint.clone(), first.device())).unwrap_or_default();
        TensorParallelGroup::start(backends, first)
    }

    /// Loads one rank's slice. `config` is that of the whole group.
    fn load_rank(
        checkpoint: &Checkpoint,
        config: CpuConfig,
        communicator: RankCommunicator,
        weights_hash: &str,
    ) -> Result<Self, LoadError> {
        let model_config = checkpoint.config();
        let slice = match &communicator {
            Some(communicator) => RankSlice { rank: communicator.rank(), size: communicator.size() },
            None => RankSlice::WHOLE,
        };
        let block = block_bytes(checkpoint, slice.size);
        let blocks = config.cache_bytes / block;
        if blocks == 0 {
            return Err(LoadError::CacheTooSmall { bytes: config.cache_bytes, block });
        }
        let rank_bytes = blocks * block / slice.size;
        check_memory(&config, rank_bytes)?;
        let max_length = model_config.max_positions.min(config.max_length.unwrap_or(usize::MAX));
        let pool = Pool::new(slice.threads(config.threads), format!("surprisal-cpu-{}", slice.rank))?;
        let missing = || LoadError::Instructions(format!("{:?}", config.instructions));
        let compute = config.instructions.compute(config.activations).ok_or_else(missing)?;
        let stored = if checkpoint.is_bf16() { WeightDtype::Bf16 } else { WeightDtype::F32 };
        let weights = config.weights.unwrap_or(stored);
        // Check before allocating memory for a configuration that does not match the tensors, or for a damaged file.
        checkpoint.check()?;
        let model = pool.install(|| Llama::load(checkpoint, weights, compute, slice))?;
        // Each rank's int8 weights have their own scales.
        let has_bits_of_one_rank = slice.has_bits_of_one_rank() && weights != WeightDtype::Int8;
        let group = if has_bits_of_one_rank { String::new() } else { slice.fingerprint_suffix() };
        let numerics = format!("{}{}-cpu-{NUMERICS_VERSION}{group}", weights.name(), compute.activations.suffix());
        // Check again now that the weights are loaded: a system that does not overcommit has that much less memory
        // left.
        check_memory(&config, rank_bytes)?;
        let kv = (0..model.layers()).map(|_| model.layer_kv(blocks)).collect();
        Ok(Self {
            compute,
            communicator,
            kv,
            hidden: HiddenStore::new(blocks, panels_for(model_config.hidden_size)),
            limits: Limits { vocab_size: model_config.vocab_size, max_length, blocks },
            fingerprint: format!("{weights_hash}-{numerics}"),
            model,
            scratch: Scratch::default(),
            pool,
        })
    }

    /// Returns the fingerprint of everything that the results depend on: weights hash, dtype, backend, numerics version
    /// and, if it matters, the number of ranks.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns a human-readable description of the device.
    pub fn device(&self) -> String {
        let bits = self.compute.arch.dispatch(VectorBits);
        format!("cpu, {} threads, {bits}-bit vectors", self.pool.threads())
    }
}

/// Checks that `bytes` bytes for the KV cache, all of it or one rank's share, can be allocated.
fn check_memory(config: &CpuConfig, bytes: usize) -> Result<(), LoadError> {
    if kv::can_allocate(bytes) { Ok(()) } else { Err(LoadError::CacheTooLarge { bytes: config.cache_bytes }) }
}

/// Returns the width in bits of the vectors that products use on this machine.
pub fn vector_bits() -> usize {
    Arch::new().dispatch(VectorBits)
}

/// Returns the size of one block in bytes, on all ranks together: keys and values of all layers, and each rank's hidden
/// state.
fn block_bytes(checkpoint: &Checkpoint, ranks: usize) -> usize {
    let config = checkpoint.config();
    let head_columns = panels_for(config.head_dim) * PANEL_WIDTH;
    let kv_heads: usize = RankSlice::all(ranks).map(|slice| slice.heads(config).1.len()).sum();
    let kv = 2 * config.layers * kv_heads * head_columns * BLOCK_TOKENS;
    (kv + ranks * panels_for(config.hidden_size) * PANEL_WIDTH) * size_of::<f32>()
}

impl Backend for CpuBackend {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        Ok(self.run(batch)?)
    }
}

impl CpuBackend {
    fn run(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, RankLost> {
        let Self { compute, model, communicator, kv, hidden, limits, scratch, pool, .. } = self;
        pool.run_pass(|| {
            for copy in &batch.copies {
                kv.iter_mut().for_each(|layer| layer.copy(copy));
                hidden.copy(copy);
            }
            let x = model.forward(batch, kv, scratch, communicator)?;
            let (normed, positions) = normed_rows(model, batch, &x);
            let inputs = head_inputs(batch, hidden, &normed, &positions);
            for &(row, block) in &batch.store_hidden {
                hidden.put(block, &normed, positions[&row]);
            }
            let (weights, chunks) = (model.head(), model.vocab_chunks());
            let head = Head { compute: *compute, weights, chunks, vocab_size: limits.vocab_size };
            head.scores(&inputs, &batch.scores, communicator)
        })
    }
}

/// Returns the final hidden states of the rows that are scored or stored, and the index of each such row among them.
fn normed_rows(model: &Llama, batch: &ForwardBatch, x: &PanelMatrix) -> (PanelMatrix, BTreeMap<usize, usize>) {
    let kept = batch.store_hidden.iter().map(|&(row, _)| row);
    let scored = batch.scores.iter().filter_map(|score| match score.from {
        Hidden::Row(row) => Some(row),
        Hidden::Block(_) => None,
    });
    let mut rows: Vec<usize> = kept.chain(scored).collect();
    rows.sort_unstable();
    rows.dedup();
    let positions = rows.iter().enumerate().map(|(at, &row)| (row, at)).collect();
    (model.last_norm(&x.gather(&rows)), positions)
}

/// Collects one hidden state for each score, from this batch or from a block of an earlier batch.
fn head_inputs(
    batch: &ForwardBatch,
    hidden: &HiddenStore,
    normed: &PanelMatrix,
    positions: &BTreeMap<usize, usize>,
) -> PanelMatrix {
    let panels = hidden.panels();
    let mut inputs = PanelMatrix::zeros(batch.scores.len(), panels);
    for (at, score) in batch.scores.iter().enumerate() {
        for panel in 0..panels {
            *inputs.row_mut(panel, at) = match score.from {
                Hidden::Row(row) => *normed.row(panel, positions[&row]),
                Hidden::Block(block) => *hidden.get(block, panel),
            };
        }
    }
    inputs
}
