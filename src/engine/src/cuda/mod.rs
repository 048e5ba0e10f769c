//! The CUDA backend: a Llama over a paged KV cache, in bf16 or FP8, on any [`Accelerator`], or divided among several.
//!
//! `Gpu` (feature `cuda`) is a GPU; `Shim` (feature `shim`) runs the same passes on a CPU, for tests.

mod accelerator;
mod collective;
mod forward;
#[cfg(feature = "cuda")]
mod gpu;
mod graphs;
#[cfg(feature = "cuda")]
mod nccl;
mod plan;
#[cfg(feature = "cuda")]
mod products;
mod score;
mod shape;
#[cfg(feature = "shim")]
mod shim;
mod source;
mod weights;
mod workspace;

use surprisal_kernels::attention;

use accelerator::Arena;
pub use accelerator::{Accelerator, FP8_MULTIPLE, Product, ROW_TILE, Region, Scales};
pub use collective::Collective;
use forward::Pass;
#[cfg(feature = "cuda")]
pub use gpu::Gpu;
use graphs::Graphs;
use plan::{Plan, Room};
use shape::Shape;
#[cfg(feature = "shim")]
pub use shim::Shim;
pub use source::{Fp8, Source};
use weights::Weights;
use workspace::{Cache, Workspace};

use crate::backend::{
    BLOCK_TOKENS, Backend, BackendError, BlockCopy, Chunk, ForwardBatch, Hidden, Limits, ScoreRow, TokenChoice,
    TokenScore,
};
use crate::cpu::LoadError;
use crate::group::Group;
use crate::part::Part;
use crate::scorer::PositionOptions;

/// Changed whenever a change of the code changes bits.
const NUMERICS: u32 = 1;

/// Of the free memory, a part that is left to the driver and to others: one in so many.
const LEFT_FREE: usize = 32;

/// What numbers are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// bf16.
    Bf16,
    /// e4m3 with scales.
    Fp8,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        }
    }
}

/// Choices for the CUDA backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaConfig {
    /// The matrices of layers. In FP8 they have a scale for each output, and each token's activations one of their own; what a
    /// checkpoint of FP8 left in bf16 stays so, as do the embedding and the head.
    pub weights: Precision,
    /// Keys and values. In FP8 each head of each token has a scale.
    pub cache: Precision,
    /// Memory for the KV cache, in bytes, of all ranks together; `None` is all that is left.
    pub cache_bytes: Option<usize>,
    /// Cap on the model's own longest sequence, in tokens.
    pub max_length: Option<usize>,
    /// The most tokens of one batch: the scheduler's budget.
    pub batch_tokens: usize,
    /// The most sequences of one batch: the scheduler's queries that run at a time.
    pub batch_sequences: usize,
}

/// A Llama on an accelerator, or one rank's part of it.
#[derive(Debug)]
pub struct CudaBackend<A: Accelerator> {
    // Before the device: it is dropped first.
    graphs: Graphs<A::Recording>,
    device: A,
    shape: Shape,
    room: Room,
    weights: Weights,
    work: Workspace,
    cache: Cache,
    fingerprint: String,
}

impl<A: Accelerator> CudaBackend<A> {
    /// Loads a model, and allocates all memory that will ever be used.
    ///
    /// # Errors
    ///
    /// The weights are malformed, the kernels do not take it, or the memory does not hold it: that is known before any
    /// is taken. The device cannot run it: that is known when it has tried.
    pub fn load(device: A, source: &impl Source, config: CudaConfig) -> Result<Self, LoadError> {
        let mut whole = Self::load_part(device, source, config, || source.fingerprint())?;
        try_out(&mut whole, config)?;
        Ok(whole)
    }

    /// Loads a model in parts, one on each device of a group, by threads that read no other's.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_group(devices: Vec<A>, source: &(impl Source + Sync), config: CudaConfig) -> Result<Group, LoadError> {
        let hash = source.fingerprint()?;
        let parts = Group::load(devices, |device| Self::load_part(device, source, config, || Ok(hash.clone())))?;
        let first = parts.first().map(|first| (first.fingerprint.clone(), first.device())).unwrap_or_default();
        let mut group = Group::start(parts, first)?;
        try_out(&mut group, config)?;
        Ok(group)
    }

    /// Whether passes that come again are recorded and replayed; not where the device has refused to record one.
    pub fn records(&self) -> bool {
        self.graphs.records()
    }

    /// Loads one rank's part; `config` is the whole group's, `hash` of the weights, asked for once they are known to fit.
    fn load_part(
        mut device: A,
        source: &impl Source,
        config: CudaConfig,
        hash: impl FnOnce() -> Result<String, surprisal_model::Error>,
    ) -> Result<Self, LoadError> {
        source.check()?;
        let part = Part { rank: device.rank(), size: device.size() };
        let shape = Shape::new(source.config(), part, &config)?;
        check_shared_memory(&device, &shape)?;
        let lay_out = |arena: &mut Arena| Weights::lay_out(arena, &shape, source);
        let weight_bytes = Arena::measure(lay_out);
        let room = room(&device, &shape, weight_bytes, config)?;
        let hash = hash()?;

        let mut arena = |bytes: usize| device.allocate(bytes).map(Arena::over);
        let weights = lay_out(&mut arena(weight_bytes)?);
        let work = |arena: &mut Arena| Workspace::lay_out(arena, &shape, &room);
        let work = work(&mut arena(Arena::measure(work))?);
        let cache = |arena: &mut Arena| Cache::lay_out(arena, &shape, &room);
        let cache = cache(&mut arena(Arena::measure(cache))?);
        weights.load(&mut device, source, &shape)?;
        let cache_name = if config.cache == Precision::Fp8 { "-kv-fp8" } else { "" };
        let (weights_name, numerics) = (config.weights.name(), device.numerics());
        let group = part.suffix();
        let fingerprint = format!("{hash}-{weights_name}{cache_name}-{numerics}-{NUMERICS}{group}");
        Ok(Self { graphs: Graphs::default(), device, shape, room, weights, work, cache, fingerprint })
    }

    /// What the numbers depend on: weights hash, dtype, device and its libraries, numerics version.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The device in words.
    pub fn device(&self) -> String {
        self.device.name()
    }

    /// A block's beginning, of all layers, and its hidden state, into another block.
    fn copy(&mut self, copy: &BlockCopy) -> Result<(), BackendError> {
        let row = self.shape.hidden * 2;
        let (from, to) = (copy.from as usize, copy.to as usize);
        for (region, slot) in self.cache.layers.iter().flat_map(|layer| layer.parts(&self.shape)) {
            let part = |block: usize| region.part(block * BLOCK_TOKENS * slot, copy.tokens * slot);
            self.device.copy(part(from)?, part(to)?)?;
        }
        let state = |block: usize| self.cache.hidden.part(block * row, row);
        self.device.copy(state(from)?, state(to)?)
    }
}

/// Whether a block of attention has the shared memory it takes.
fn check_shared_memory<A: Accelerator>(device: &A, shape: &Shape) -> Result<(), LoadError> {
    let needed = attention::shared_memory(shape.head as u32, shape.fp8_cache) as usize;
    let limit = device.shared_memory()?;
    if needed > limit {
        return Err(LoadError::SharedMemory { head_dim: shape.head_dim, needed, limit });
    }
    Ok(())
}

/// Runs a pass of two tokens, and one of one token three times: they launch both kinds of attention and choose every product's algorithm,
/// and the last is queued, recorded and replayed, so that what the device lacks is an error of the load. Nobody looks for what they leave
/// in the cache.
fn try_out(backend: &mut impl Backend, config: CudaConfig) -> Result<(), LoadError> {
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
        let failed = |error: BackendError| BackendError(format!("the first pass failed: {error}"));
        backend.forward(&batch).map_err(failed)?;
    }
    Ok(())
}

/// How many blocks fit beside weights and workspace.
fn room<A: Accelerator>(device: &A, shape: &Shape, weights: usize, config: CudaConfig) -> Result<Room, LoadError> {
    let CudaConfig { batch_tokens, batch_sequences, cache_bytes, .. } = config;
    let room = |blocks| Room { rows: batch_tokens.max(1), chunks: batch_sequences.max(1), blocks };
    let others = Arena::measure(|arena| {
        Workspace::lay_out(arena, shape, &room(0));
        // Without blocks it has what else its regions take: the batch's rows, and rounding.
        Cache::lay_out(arena, shape, &room(1));
    });
    let (block, free) = (Cache::block_bytes(shape), device.free_memory()?);
    let usable = free - free / LEFT_FREE;
    let needed = weights + others;
    let left = usable.checked_sub(needed);
    let left = left.ok_or(LoadError::DeviceMemory { needed, weights, free: usable })?;
    let offered = cache_bytes.map_or(left, |all| all / shape.part.size).min(left);
    match offered / block {
        0 => Err(LoadError::CacheTooSmall { bytes: offered, block }),
        blocks => Ok(room(blocks.min(i32::MAX as usize / BLOCK_TOKENS))),
    }
}

impl<A: Accelerator> Backend for CudaBackend<A> {
    fn limits(&self) -> Limits {
        Limits { vocab_size: self.shape.vocab, max_length: self.shape.max_length, blocks: self.room.blocks }
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        let plan = Plan::new(batch, &self.shape, &self.room)?;
        for copy in &batch.copies {
            self.copy(copy)?;
        }
        let Self { graphs, device, shape, room, weights, work, cache, .. } = self;
        Pass { device, shape, room, weights, work, cache, plan: &plan }.run(graphs)
    }

    fn is_usable(&self) -> bool {
        self.device.is_alive()
    }
}
