//! The `Backend` trait: a device that runs the model, and the batches that the scheduler passes to it.

use std::ops::Range;

use crate::sampling::Sample;
use crate::scorer::{PositionDetails, PositionOptions};

/// Tokens per KV block, on every backend. Prefixes are shared, and attention is split, at multiples of this number.
pub const BLOCK_TOKENS: usize = 32;

/// Index of a KV block in the backend's cache.
pub type BlockId = u32;

/// The input of one forward pass: tokens of some sequences, and the log-probabilities to return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForwardBatch {
    /// Copies of keys and values between blocks, made before anything else.
    pub copies: Vec<BlockCopy>,
    /// The tokens of all chunks, concatenated. A row is an index into this list.
    pub tokens: Vec<u32>,
    /// The chunks: the rows of each sequence.
    pub chunks: Vec<Chunk>,
    /// Rows whose final hidden states (after the last norm) the backend stores, each with the block to store it with.
    pub store_hidden: Vec<(usize, BlockId)>,
    /// The log-probabilities to return, and the tokens to sample.
    pub scores: Vec<ScoreRow>,
}

/// A copy of the keys and values of a block's first `tokens` tokens, and of the block's hidden state, to another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// Source block.
    pub from: BlockId,
    /// Destination block, held by only one sequence.
    pub to: BlockId,
    /// Number of tokens; at most [`BLOCK_TOKENS`].
    pub tokens: usize,
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The chunk's rows in the batch.
    pub rows: Range<usize>,
    /// Position of the first row in its sequence; everything before it is in the cache.
    pub start: usize,
    /// Block table: position `i` is in `blocks[i / BLOCK_TOKENS]`.
    pub blocks: Vec<BlockId>,
}

/// One log-probability to return: that of a token given the hidden state before it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The hidden state that predicts the token.
    pub from: Hidden,
    /// The token: given, or to be sampled.
    pub choice: TokenChoice,
    /// The details to return with the log-probability.
    pub options: PositionOptions,
}

/// The token of a [`ScoreRow`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenChoice {
    /// A given token.
    Given(u32),
    /// A token sampled from the row's distribution.
    Sampled(Sample),
}

/// The result of a [`ScoreRow`].
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// The given or sampled token.
    pub token: u32,
    /// The token's log-probability, in nats.
    pub logprob: f32,
    /// The details that [`ScoreRow::options`] requests; `None` if it requests none.
    pub position: Option<Box<PositionDetails>>,
}

/// The location of a hidden state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// A row of this batch.
    Row(usize),
    /// A block with which an earlier batch stored the hidden state.
    Block(BlockId),
}

/// The sizes that a backend supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence that the model supports, in tokens.
    pub max_length: usize,
    /// Number of KV blocks in the cache.
    pub blocks: usize,
}

impl Limits {
    /// Returns the length of the longest query that fits, in tokens: the model's limit, or the cache's capacity plus
    /// one if that is less. The last token needs no space in the cache.
    pub fn max_query_length(&self) -> usize {
        self.max_length.min(self.blocks * BLOCK_TOKENS + 1)
    }
}

/// The reason a backend could not run a batch.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct BackendError(pub String);

/// A device that runs the model.
///
/// Every backend guarantees that a result depends, to the last bit, only on its token and the tokens before it (and,
/// for a sampled token, on its [`Sample`]). It does not depend on the rest of the batch, on how the sequence was cut
/// into chunks, or on which of its blocks were computed earlier. A token's log-probability is the same whether the
/// token is given or sampled, and whatever options are requested.
pub trait Backend: Send + 'static {
    /// Returns the sizes that this backend supports.
    fn limits(&self) -> Limits;
    /// Runs a batch and returns one score for each of `batch.scores`, in order.
    ///
    /// # Errors
    /// Returns an error if the batch could not be run. [`is_usable`](Self::is_usable) then reports whether another
    /// batch can succeed.
    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError>;
    /// Returns whether another batch can succeed. The engine calls this after a batch fails or panics, and replaces a
    /// backend that returns `false`.
    fn is_usable(&self) -> bool {
        true
    }
}
