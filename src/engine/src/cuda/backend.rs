//! `CudaBackend`: loads a model, or one rank's slice of it, onto an accelerator, and runs batches.

use surprisal_kernels::attention;

use super::accelerator::Accelerator;
use super::batch_plan::{BatchPlan, Capacity};
use super::config::{CudaConfig, Precision};
use super::forward::ForwardPass;
use super::graph_cache::GraphCache;
use super::kv_cache::PagedCache;
use super::memory::Arena;
use super::model_shape::ModelShape;
use super::weight_loader;
use super::weight_source::WeightSource;
use super::weights::DeviceWeights;
use super::workspace::Workspace;
use crate::backend::{
    BLOCK_TOKENS, Backend, BackendError, BlockCopy, Chunk, ForwardBatch, Hidden, Limits, ScoreRow, TokenChoice,
    TokenScore,
};
use crate::load_error::LoadError;
use crate::parallel::group::TensorParallelGroup;
use crate::parallel::rank_slice::RankSlice;
use crate::scorer::PositionOptions;

/// Version of the backend's arithmetic, for fingerprints. Increase it whenever a code change alters the bits of a
/// result.
const NUMERICS_VERSION: u32 = 1;

/// Denominator of the fraction of free memory that is left to the driver and to other processes.
const RESERVED_DIVISOR: usize = 32;

/// A Llama model, or one rank's slice of it, on an accelerator.
#[derive(Debug)]
pub struct CudaBackend<A: Accelerator> {
    // Declared before the device, so that it is dropped first.
    graphs: GraphCache<A::Recording>,
    device: A,
    shape: ModelShape,
    capacity: Capacity,
    weights: DeviceWeights,
    work: Workspace,
    cache: PagedCache,
    fingerprint: String,
}

impl<A: Accelerator> CudaBackend<A> {
    /// Loads a model, and allocates all memory that it will ever use.
    ///
    /// # Errors
    ///
    /// Fails before it allocates memory if a tensor is missing, misshapen or unexpected, a checksum differs, the
    /// kernels do not support the model, or the model does not fit. Fails later if a weight is not finite, or if a
    /// trial pass shows that the device cannot run the model.
    pub fn load(device: A, source: &impl WeightSource, config: CudaConfig) -> Result<Self, LoadError> {
        let mut backend = Self::load_rank(device, source, config, || source.fingerprint())?;
        warm_up(&mut backend, config)?;
        Ok(backend)
    }

    /// Loads one slice of a model onto each device of a group. A separate thread loads each slice, and reads only that
    /// slice.
    ///
    /// # Errors
    ///
    /// Same as [`load`](Self::load).
    pub fn load_group(
        devices: Vec<A>,
        source: &(impl WeightSource + Sync),
        config: CudaConfig,
    ) -> Result<TensorParallelGroup, LoadError> {
        let hash = source.fingerprint()?;
        let load = |device| Self::load_rank(device, source, config, || Ok(hash.clone()));
        let backends = TensorParallelGroup::load_ranks(devices, load)?;
        let first = backends.first().map(|first| (first.fingerprint.clone(), first.device())).unwrap_or_default();
        let mut group = TensorParallelGroup::start(backends, first)?;
        warm_up(&mut group, config)?;
        Ok(group)
    }

    /// Returns whether repeated passes are recorded and replayed: `true` until the device fails to record one.
    pub fn records_passes(&self) -> bool {
        self.graphs.can_record()
    }

    /// Loads one rank's slice. `config` applies to the whole group. `weights_hash` is called only if the weights fit,
    /// because it may read every weight file.
    fn load_rank(
        mut device: A,
        source: &impl WeightSource,
        config: CudaConfig,
        weights_hash: impl FnOnce() -> Result<String, surprisal_model::Error>,
    ) -> Result<Self, LoadError> {
        source.check()?;
        let slice = RankSlice { rank: device.rank(), size: device.size() };
        let shape = ModelShape::new(source.config(), slice, &config)?;
        check_shared_memory(&device, &shape)?;
        let lay_out = |arena: &mut Arena| DeviceWeights::lay_out(arena, &shape, source);
        let weight_bytes = Arena::measure(lay_out);
        let capacity = measure_capacity(&device, &shape, weight_bytes, config)?;
        let hash = weights_hash()?;

        let mut arena = |bytes: usize| device.allocate(bytes).map(Arena::over);
        let weights = lay_out(&mut arena(weight_bytes)?);
        let work = |arena: &mut Arena| Workspace::lay_out(arena, &shape, &capacity);
        let work = work(&mut arena(Arena::measure(work))?);
        let cache = |arena: &mut Arena| PagedCache::lay_out(arena, &shape, &capacity);
        let cache = cache(&mut arena(Arena::measure(cache))?);
        weight_loader::load(&weights, &mut device, source, &shape)?;
        let cache_name = if config.cache == Precision::Fp8 { "-kv-fp8" } else { "" };
        let (weights_name, numerics) = (config.weights.name(), device.numerics());
        let group = slice.fingerprint_suffix();
        let fingerprint = format!("{hash}-{weights_name}{cache_name}-{numerics}-{NUMERICS_VERSION}{group}");
        Ok(Self { graphs: GraphCache::default(), device, shape, capacity, weights, work, cache, fingerprint })
    }

    /// Returns the fingerprint of everything on which the results depend: the hash of the weights, the types of the
    /// weights and the cache, the device and its libraries, the numerics version, and the number of ranks.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns a description of the device.
    pub fn device(&self) -> String {
        self.device.name()
    }

    /// Copies a block's first tokens, in all layers, and the block's hidden state to another block.
    fn copy(&mut self, copy: &BlockCopy) -> Result<(), BackendError> {
        let row = self.shape.hidden * 2;
        let (from, to) = (copy.from as usize, copy.to as usize);
        for (region, slot) in self.cache.layers.iter().flat_map(|layer| layer.regions(&self.shape)) {
            let tokens = |block: usize| region.subregion(block * BLOCK_TOKENS * slot, copy.tokens * slot);
            self.device.copy(tokens(from)?, tokens(to)?)?;
        }
        let state = |block: usize| self.cache.hidden.subregion(block * row, row);
        self.device.copy(state(from)?, state(to)?)
    }
}

/// Checks that the device has the shared memory that a thread block of the attention kernel needs.
fn check_shared_memory<A: Accelerator>(device: &A, shape: &ModelShape) -> Result<(), LoadError> {
    let needed = attention::shared_memory(shape.padded_head_dim as u32, shape.fp8_cache) as usize;
    let limit = device.shared_memory()?;
    if needed > limit {
        return Err(LoadError::SharedMemory { head_dim: shape.head_dim, needed, limit });
    }
    Ok(())
}

/// Runs a pass of two tokens once, then a pass of one token three times, so that loading fails if the device cannot run
/// the model.
///
/// The passes launch both attention kernels, and choose an algorithm for every matrix product. The pass of one token is
/// first queued, then recorded, then replayed. No query reads the values that the passes leave in the cache.
fn warm_up(backend: &mut impl Backend, config: CudaConfig) -> Result<(), LoadError> {
    let most = config.batch_tokens.min(backend.limits().max_length).max(1);
    for count in [most.min(2), 1, 1, 1] {
        let score = ScoreRow {
            from: Hidden::Row(count - 1),
            choice: TokenChoice::Given(0),
            options: PositionOptions::default(),
        };
        let batch = ForwardBatch {
            tokens: vec![0; count],
            chunks: vec![Chunk { rows: 0..count, start: 0, blocks: vec![0] }],
            scores: vec![score],
            ..ForwardBatch::default()
        };
        let failed = |error: BackendError| BackendError(format!("a trial pass failed: {error}"));
        backend.forward(&batch).map_err(failed)?;
    }
    Ok(())
}

/// Computes the number of KV blocks that fit in memory in addition to the weights and the workspace.
fn measure_capacity<A: Accelerator>(
    device: &A,
    shape: &ModelShape,
    weights: usize,
    config: CudaConfig,
) -> Result<Capacity, LoadError> {
    let CudaConfig { batch_tokens, batch_sequences, cache_bytes, .. } = config;
    let with_blocks = |blocks| Capacity { rows: batch_tokens.max(1), chunks: batch_sequences.max(1), blocks };
    let others = Arena::measure(|arena| {
        Workspace::lay_out(arena, shape, &with_blocks(0));
        // One block, to include the hidden states of the batch's rows and the rounding of the cache's regions.
        PagedCache::lay_out(arena, shape, &with_blocks(1));
    });
    let (block, free) = (PagedCache::block_bytes(shape), device.free_memory()?);
    let usable = free - free / RESERVED_DIVISOR;
    let needed = weights + others;
    let left = usable.checked_sub(needed);
    let left = left.ok_or(LoadError::DeviceMemory { needed, weights, free: usable })?;
    let offered = cache_bytes.map_or(left, |all| all / shape.slice.size).min(left);
    match offered / block {
        0 => Err(LoadError::CacheTooSmall { bytes: offered, block }),
        blocks => Ok(with_blocks(blocks.min(i32::MAX as usize / BLOCK_TOKENS))),
    }
}

impl<A: Accelerator> Backend for CudaBackend<A> {
    fn limits(&self) -> Limits {
        Limits { vocab_size: self.shape.vocab, max_length: self.shape.max_length, blocks: self.capacity.blocks }
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        let plan = BatchPlan::new(batch, &self.shape, &self.capacity)?;
        for copy in &batch.copies {
            self.copy(copy)?;
        }
        let Self { graphs, device, shape, capacity, weights, work, cache, .. } = self;
        ForwardPass { device, shape, capacity, weights, work, cache, plan: &plan }.run(graphs)
    }

    fn is_usable(&self) -> bool {
        self.device.is_alive()
    }
}
