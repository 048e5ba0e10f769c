//! The `Backend` trait: what the scheduler asks of a device, and the batch it hands over.

use std::ops::Range;

use crate::draw::Draw;
use crate::scorer::{Extras, Position};

/// Tokens a KV block holds, on every backend: prefixes are shared, and attention is split, at multiples of it.
pub const BLOCK_TOKENS: usize = 32;

/// Index of a KV block in the backend's cache.
pub type BlockId = u32;

/// One forward pass: some tokens of some sequences, and which log-probabilities to return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForwardBatch {
    /// Done first: keys and values copied between blocks.
    pub copies: Vec<BlockCopy>,
    /// The tokens of all chunks, one after the other; a row is an index into them.
    pub tokens: Vec<u32>,
    /// Which rows belong to which sequence.
    pub chunks: Vec<Chunk>,
    /// Rows whose final hidden state (after the last norm) is stored with a block.
    pub keep: Vec<(usize, BlockId)>,
    /// The log-probabilities to return, and the tokens to draw.
    pub scores: Vec<ScoreRow>,
}

/// Copies the keys and values of a block's first `tokens` tokens, and its hidden state, into another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// Source.
    pub from: BlockId,
    /// Destination, held by one sequence alone.
    pub to: BlockId,
    /// How many tokens; at most [`BLOCK_TOKENS`].
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

/// One log-probability to return: of a token after a hidden state.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The hidden state that predicts the token.
    pub from: Hidden,
    /// Which token.
    pub choice: Choice,
    /// What else to return.
    pub extras: Extras,
}

/// The token that a [`ScoreRow`] is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// This one.
    Given(u32),
    /// One drawn from the row's distribution.
    Drawn(Draw),
}

/// What a backend returns for a [`ScoreRow`].
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// The token: the one given, or the one drawn.
    pub token: u32,
    /// Its log-probability in nats.
    pub logprob: f32,
    /// What [`ScoreRow::extras`] asked for; `None` where it is empty.
    pub position: Option<Box<Position>>,
}

/// Where a hidden state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// A row of this batch.
    Row(usize),
    /// Stored with a block by an earlier batch.
    Block(BlockId),
}

/// What a backend can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of token ids.
    pub vocab_size: usize,
    /// The longest sequence the model takes, in tokens.
    pub max_length: usize,
    /// KV blocks in the cache.
    pub blocks: usize,
}

/// A backend could not run a batch.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct BackendError(pub String);

/// A device that runs the model.
///
/// The promise every backend keeps: what is returned depends on the tokens before it alone (and, if it is drawn, on its
/// [`Draw`]), to the last bit, not on what else is in the batch, how a sequence was cut into chunks, or which of its blocks
/// were computed earlier. A log-probability is the same whether or not its token was drawn or more was asked.
pub trait Backend: Send + 'static {
    /// What fits.
    fn limits(&self) -> Limits;
    /// Runs a batch; returns one score for each of `batch.scores`, in order.
    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError>;
    /// Whether another batch can succeed, asked after one failed or panicked. If not, the engine makes the backend anew.
    fn is_usable(&self) -> bool {
        true
    }
}
