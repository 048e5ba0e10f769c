//! The `Backend` trait: a device that runs the model, and the batch that the scheduler gives it.

use std::ops::Range;

use crate::sampling::Sample;
use crate::scorer::{PositionDetails, PositionOptions};

/// Tokens in a KV block, on every backend: prefixes are shared, and attention is split, at multiples of it.
pub const BLOCK_TOKENS: usize = 32;

/// Index of a KV block in the backend's cache.
pub type BlockId = u32;

/// One forward pass: some tokens of some sequences, and which log-probabilities to return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForwardBatch {
    /// Keys and values to copy between blocks, before anything else.
    pub copies: Vec<BlockCopy>,
    /// The tokens of all chunks, one after the other; a row is an index into them.
    pub tokens: Vec<u32>,
    /// Each sequence's rows.
    pub chunks: Vec<Chunk>,
    /// Rows whose final hidden state (after the last norm) the backend stores with a block.
    pub store_hidden: Vec<(usize, BlockId)>,
    /// The log-probabilities to return, and the tokens to sample.
    pub scores: Vec<ScoreRow>,
}

/// A copy of the keys and values of a block's first `tokens` tokens, and of its hidden state, into another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// Source.
    pub from: BlockId,
    /// Destination, held by one sequence alone.
    pub to: BlockId,
    /// Number of tokens; at most [`BLOCK_TOKENS`].
    pub tokens: usize,
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Position of the first row in its sequence; everything before it is in the cache.
    pub start: usize,
    /// Block table: position `i` lives in `blocks[i / BLOCK_TOKENS]`.
    pub blocks: Vec<BlockId>,
}

/// One log-probability to return: that of a token after a hidden state.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The hidden state that predicts the token.
    pub from: Hidden,
    /// The token: given, or to be sampled.
    pub choice: TokenChoice,
    /// The details to return.
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
    /// Its log-probability in nats.
    pub logprob: f32,
    /// The details that [`ScoreRow::options`] asks for; `None` if it is empty.
    pub position: Option<Box<PositionDetails>>,
}

/// The location of a hidden state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// A row of this batch.
    Row(usize),
    /// Stored with a block by an earlier batch.
    Block(BlockId),
}

/// The sizes that a backend supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of token ids.
    pub vocab_size: usize,
    /// The longest sequence the model takes, in tokens.
    pub max_length: usize,
    /// KV blocks in the cache.
    pub blocks: usize,
}

impl Limits {
    /// Returns the longest query that fits, in tokens: what the model takes, or what the cache holds, and one more,
    /// because the last token needs no block.
    pub fn max_query_length(&self) -> usize {
        self.max_length.min(self.blocks * BLOCK_TOKENS + 1)
    }
}

/// The reason why a backend could not run a batch.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct BackendError(pub String);

/// A device that runs the model.
///
/// Every backend guarantees that a result depends on the tokens before it alone (and, for a sampled token, on its
/// [`Sample`]), to the last bit: not on the rest of the batch, on how a sequence was cut into chunks, or on which of
/// its blocks were computed earlier. A log-probability is the same whether its token was given or sampled, and whatever
/// the options.
pub trait Backend: Send + 'static {
    /// Returns the sizes that fit.
    fn limits(&self) -> Limits;
    /// Runs a batch and returns one score for each of `batch.scores`, in order.
    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError>;
    /// Returns whether another batch can succeed. The engine calls it after a batch failed or panicked, and replaces a
    /// backend that returns false.
    fn is_usable(&self) -> bool {
        true
    }
}
