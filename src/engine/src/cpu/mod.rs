//! The CPU backend: a Llama over a paged KV cache.

mod attention;
mod bf16;
mod head;
mod instructions;
mod kv;
mod llama;
mod math;
mod matrix;
mod panels;
mod pool;
mod probe;
mod rope;
mod softmax;
mod sums;
mod weights;

use std::collections::BTreeMap;

use pulp::Arch;
use surprisal_model::Checkpoint;

use crate::backend::{BLOCK_TOKENS, Backend, BackendError, ForwardBatch, Hidden, Limits, TokenScore};
use crate::communicator::{Communicator, RankLost, ThreadCommunicator};
use crate::group::Group;
use crate::part::{GROUP_TOKENS, Part};
use head::Head;
pub use instructions::Instructions;
use kv::{HiddenStore, LayerKv};
use llama::{Llama, Ranks, Scratch};
use matrix::Compute;
use panels::{PANEL, Panels, panels_for};
use pool::Pool;
pub use probe::Probe;
pub use weights::WeightType;

// A rank's part of the vocabulary is whole panels.
const _: () = assert!(GROUP_TOKENS == PANEL);

/// Changed whenever a change of the code changes bits.
const NUMERICS: u32 = 2;

/// How products read activations; sums, norms, attention and the residual stream are f32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16, and f32 weights with them: about twice the speed where the machine has AVX512-BF16.
    Bf16,
}

/// Choices for the CPU backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// How weights are stored; `None` is bf16 for a bf16 checkpoint, with which no bit is lost, and f32 for others.
    pub weights: Option<WeightType>,
    /// How products read activations.
    pub activations: Activations,
    /// What computes; for comparisons, as the default is the fastest.
    pub instructions: Instructions,
    /// Memory for the KV cache, in bytes.
    pub cache_bytes: usize,
    /// Threads that compute; 0 means one a core.
    pub threads: usize,
    /// Cap on the model's own longest sequence, in tokens.
    pub max_length: Option<usize>,
}

impl CpuConfig {
    /// Refuses a cache of which so many bytes, all of it or a rank's part, cannot be allocated.
    fn check_memory(&self, bytes: usize) -> Result<(), LoadError> {
        if kv::is_to_be_had(bytes) { Ok(()) } else { Err(LoadError::CacheTooLarge { bytes: self.cache_bytes }) }
    }
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self {
            weights: None,
            activations: Activations::F32,
            instructions: Instructions::Best,
            cache_bytes: 1 << 30,
            threads: 0,
            max_length: None,
        }
    }
}

/// Why a model could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Model(#[from] surprisal_model::Error),
    /// The KV cache would hold nothing.
    #[error(
        "the KV cache has {bytes} bytes, but one block of {BLOCK_TOKENS} tokens takes {block}; give it more memory"
    )]
    CacheTooSmall {
        /// Bytes offered.
        bytes: usize,
        /// Bytes of one block.
        block: usize,
    },
    /// The machine does not give the KV cache its memory.
    #[error(
        "cache_mib is {} ({:.1} GiB), but it could not be allocated; lower it",
        *bytes >> 20, *bytes as f64 / (1_u64 << 30) as f64
    )]
    CacheTooLarge {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The machine lacks them.
    #[error("the instructions {0:?} were asked for, which this machine does not have")]
    Instructions(Instructions),
    /// The device's kernels do not take the model.
    #[error("{field} is {value}, but on this device it must be {limit}")]
    Unsupported {
        /// The field of config.json.
        field: &'static str,
        /// What it is.
        value: usize,
        /// What it may be.
        limit: &'static str,
    },
    /// The device's memory does not hold the model.
    #[error(
        "the model takes {needed} bytes of the device's memory ({weights} of weights), but {free} are free; \
         lower the longest sequence or the token budget, or take a larger device"
    )]
    DeviceMemory {
        /// Bytes of all but the KV cache, and of the cache's least.
        needed: usize,
        /// Bytes of weights among them.
        weights: usize,
        /// Bytes to be had.
        free: usize,
    },
    /// A block of the device's threads may not have the shared memory that attention takes.
    #[error(
        "attention over heads of {head_dim} takes {needed} bytes of shared memory, but a block on this device has {limit}; \
         take another device"
    )]
    SharedMemory {
        /// The field of config.json.
        head_dim: usize,
        /// Bytes that a block takes.
        needed: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// The device failed, or there is none.
    #[error(transparent)]
    Device(#[from] BackendError),
    /// The threads could not be started.
    #[error("the compute threads could not be started: {0}")]
    Threads(String),
}

/// A Llama on the CPU, or one rank's part of it.
#[derive(Debug)]
pub struct CpuBackend {
    compute: Compute,
    model: Llama,
    ranks: Ranks,
    kv: Vec<LayerKv>,
    hidden: HiddenStore,
    limits: Limits,
    fingerprint: String,
    scratch: Scratch,
    pool: Pool,
}

impl CpuBackend {
    /// Loads a checkpoint and allocates its KV cache.
    pub fn load(checkpoint: &Checkpoint, config: CpuConfig) -> Result<Self, LoadError> {
        Self::load_part(checkpoint, config, None, &checkpoint.fingerprint()?)
    }

    /// Loads a checkpoint in `ranks` parts, each by a thread that reads no other's; the threads and the memory of `config` are
    /// divided among them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_group(checkpoint: &Checkpoint, config: CpuConfig, ranks: usize) -> Result<Group, LoadError> {
        let ranks = ThreadCommunicator::group(ranks.max(1));
        Self::load_group_over(checkpoint, config, ranks.into_iter().map(|rank| Box::new(rank) as _).collect())
    }

    /// As [`load_group`](Self::load_group), over the ranks of any group.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_group_over(
        checkpoint: &Checkpoint,
        config: CpuConfig,
        ranks: Vec<Box<dyn Communicator>>,
    ) -> Result<Group, LoadError> {
        // As a whole first: a system that promises more than it has refuses no small pieces.
        config.check_memory(config.cache_bytes)?;
        let weights = checkpoint.fingerprint()?;
        let parts = Group::load(ranks, |rank| Self::load_part(checkpoint, config, Some(rank), &weights))?;
        let first = parts.first().map(|first| (first.fingerprint.clone(), first.device())).unwrap_or_default();
        Group::start(parts, first)
    }

    /// Loads one rank's part; `config` is the whole group's, `hash` of the weights.
    fn load_part(checkpoint: &Checkpoint, config: CpuConfig, ranks: Ranks, hash: &str) -> Result<Self, LoadError> {
        let model_config = checkpoint.config();
        let part = ranks.as_ref().map_or(Part::WHOLE, |own| Part { rank: own.rank(), size: own.size() });
        let block = block_bytes(checkpoint, part.size);
        let blocks = config.cache_bytes / block;
        if blocks == 0 {
            return Err(LoadError::CacheTooSmall { bytes: config.cache_bytes, block });
        }
        let own_bytes = blocks * block / part.size;
        config.check_memory(own_bytes)?;
        let max_length = model_config.max_positions.min(config.max_length.unwrap_or(usize::MAX));
        let pool = Pool::new(part.threads(config.threads), format!("surprisal-cpu-{}", part.rank))?;
        let lacking = || LoadError::Instructions(config.instructions);
        let compute = config.instructions.compute(config.activations).ok_or_else(lacking)?;
        let stored = if checkpoint.is_bf16() { WeightType::Bf16 } else { WeightType::F32 };
        let weights = config.weights.unwrap_or(stored);
        // Before memory is taken for a configuration that its tensors do not bear out, or for a damaged file.
        checkpoint.check()?;
        let model = pool.install(|| Llama::load(checkpoint, weights, compute, part))?;
        // A rank's int8 weights have scales of its own.
        let is_one = part.is_nested() && weights != WeightType::Int8;
        let group = if is_one { String::new() } else { part.suffix() };
        let numerics = format!("{}{}-cpu-{NUMERICS}{group}", weights.name(), compute.activations.suffix());
        // Again, beside the weights: where memory is not promised twice, theirs is gone.
        config.check_memory(own_bytes)?;
        let kv = (0..model.layers()).map(|_| model.layer_kv(blocks)).collect();
        Ok(Self {
            compute,
            ranks,
            kv,
            hidden: HiddenStore::new(blocks, panels_for(model_config.hidden_size)),
            limits: Limits { vocab_size: model_config.vocab_size, max_length, blocks },
            fingerprint: format!("{hash}-{numerics}"),
            model,
            scratch: Scratch::default(),
            pool,
        })
    }

    /// What the numbers depend on: weights hash, dtype, backend, numerics version.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The device in words.
    pub fn device(&self) -> String {
        let bits = self.compute.arch.dispatch(matrix::VectorBits);
        format!("cpu, {} threads, {bits}-bit vectors", self.pool.threads())
    }
}

/// How wide the vectors are that this machine's products are computed with.
pub fn vector_bits() -> usize {
    Arch::new().dispatch(matrix::VectorBits)
}

/// Bytes of one block on all ranks together: keys and values of all layers, and each rank's hidden state.
fn block_bytes(checkpoint: &Checkpoint, ranks: usize) -> usize {
    let config = checkpoint.config();
    let head_columns = panels_for(config.head_dim) * PANEL;
    let kv_heads: usize = Part::all(ranks).map(|part| part.heads(config).1.len()).sum();
    let kv = 2 * config.layers * kv_heads * head_columns * BLOCK_TOKENS;
    (kv + ranks * panels_for(config.hidden_size) * PANEL) * size_of::<f32>()
}

impl Backend for CpuBackend {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        Ok(self.computed(batch)?)
    }
}

impl CpuBackend {
    fn computed(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, RankLost> {
        let Self { compute, model, ranks, kv, hidden, limits, scratch, pool, .. } = self;
        pool.pass(|| {
            for copy in &batch.copies {
                kv.iter_mut().for_each(|layer| layer.copy(copy));
                hidden.copy(copy);
            }
            let x = model.forward(batch, kv, scratch, ranks)?;
            let (normed, place) = needed_rows(model, batch, &x);
            let inputs = head_inputs(batch, hidden, &normed, &place);
            for &(row, block) in &batch.store_hidden {
                hidden.put(block, &normed, place[&row]);
            }
            let (weights, chunks) = (model.head(), model.chunks());
            let head = Head { compute: *compute, weights, chunks, vocab_size: limits.vocab_size };
            head.scores(&inputs, &batch.scores, ranks)
        })
    }
}

/// The final hidden states that are scored or kept, and where each row's is.
fn needed_rows(model: &Llama, batch: &ForwardBatch, x: &Panels) -> (Panels, BTreeMap<usize, usize>) {
    let kept = batch.store_hidden.iter().map(|&(row, _)| row);
    let scored = batch.scores.iter().filter_map(|score| match score.from {
        Hidden::Row(row) => Some(row),
        Hidden::Block(_) => None,
    });
    let mut rows: Vec<usize> = kept.chain(scored).collect();
    rows.sort_unstable();
    rows.dedup();
    let place = rows.iter().enumerate().map(|(at, &row)| (row, at)).collect();
    (model.last_norm(&x.gather(&rows)), place)
}

/// One row for each score: from this batch, or from an earlier one's block.
fn head_inputs(batch: &ForwardBatch, hidden: &HiddenStore, normed: &Panels, place: &BTreeMap<usize, usize>) -> Panels {
    let panels = hidden.panels();
    let mut inputs = Panels::zeros(batch.scores.len(), panels);
    for (at, score) in batch.scores.iter().enumerate() {
        for panel in 0..panels {
            *inputs.row_mut(panel, at) = match score.from {
                Hidden::Row(row) => *normed.row(panel, place[&row]),
                Hidden::Block(block) => *hidden.get(block, panel),
            };
        }
    }
    inputs
}
