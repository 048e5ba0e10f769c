//! `BatchPlan`: a batch as the integers that kernels read. The integers are checked, because kernels trust them, and
//! packed into one array, so that a single copy transfers them.

use std::ops::Range;

use surprisal_kernels::attention::query_tiles;
use surprisal_kernels::logprobs::LARGEST_TOP;

use super::model_shape::ModelShape;
use crate::backend::{BLOCK_TOKENS, BackendError, Chunk, ForwardBatch, Hidden, TokenChoice};
use crate::sampling::Sample;
use crate::scorer::PositionOptions;
use crate::scorer::subset::Subset;

/// The sizes of the largest batch and of the cache. Memory for both is allocated when the model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Maximum tokens per batch.
    pub(super) rows: usize,
    /// Maximum sequences per batch.
    pub(super) chunks: usize,
    /// Number of KV blocks in the cache.
    pub(super) blocks: usize,
}

impl Capacity {
    /// Returns the maximum number of scores per batch: one per row, plus one per sequence from a kept hidden state.
    pub(super) fn scores(&self) -> usize {
        self.rows + self.chunks
    }

    /// Returns the number of integers in the largest plan.
    pub(super) fn ints(&self, shape: &ModelShape) -> usize {
        let width = shape.max_length.div_ceil(BLOCK_TOKENS);
        let tiles = self.rows / 64 + 2 * self.chunks;
        // The term `2` is for the end that each of the two launches stores after its starts.
        3 * self.rows + self.chunks * (width + 2) + 2 + 2 * tiles + 2 * self.scores()
    }
}

/// The kernel that an attention launch runs.
#[derive(Clone, Copy)]
enum AttentionKernel {
    /// Prefill, which processes queries in tiles. A tile's size depends on the head dimension.
    Prefill { padded_head_dim: u32 },
    /// Decode, which rounds the widths of block tables up to a few values.
    Decode { max_table_width: usize },
}

/// The sequences of one attention launch. All ranges except `rows` index [`BatchPlan::ints`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AttentionLaunch {
    /// Consecutive rows in the device's order.
    pub(super) rows: Range<usize>,
    pub(super) sequences: usize,
    pub(super) table: Range<usize>,
    pub(super) table_width: usize,
    pub(super) contexts: Range<usize>,
    pub(super) starts: Range<usize>,
    pub(super) tiles: Range<usize>,
}

/// A batch in the device's order: chunks of several tokens first, then single tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BatchPlan {
    pub(super) ints: Vec<i32>,
    pub(super) tokens: Range<usize>,
    pub(super) positions: Range<usize>,
    pub(super) slots: Range<usize>,
    pub(super) prefill: AttentionLaunch,
    pub(super) decode: AttentionLaunch,
    /// The index of each score's hidden state. The hidden states of all blocks come first, then those of the batch's
    /// rows.
    pub(super) scored: Range<usize>,
    /// The token of each score; 0 if the token is yet to be sampled.
    pub(super) targets: Range<usize>,
    /// The indices of the scores whose tokens are to be sampled, each with its sampling parameters.
    pub(super) sampled: Vec<(usize, Sample)>,
    /// The options of each score.
    pub(super) options: Vec<PositionOptions>,
    /// The largest number of most probable tokens that a score requests.
    pub(super) top: usize,
    /// The rows, in the device's order, whose hidden states are kept, each with the block that keeps the state.
    pub(super) kept_states: Vec<(usize, usize)>,
}

impl BatchPlan {
    /// Checks a batch and packs its integers.
    ///
    /// # Errors
    ///
    /// Fails if the batch exceeds the capacity, or an index is out of range.
    pub(super) fn new(batch: &ForwardBatch, shape: &ModelShape, capacity: &Capacity) -> Result<Self, BackendError> {
        check_batch(batch, shape, capacity)?;
        let (prefill, decode) = split_chunks(batch, shape);
        let order: Vec<&Chunk> = prefill.iter().chain(&decode).copied().collect();
        let device_rows = device_rows(batch.tokens.len(), &order);
        let mut plan = Self::default();
        plan.add_rows(batch, &order);
        plan.add_attention(&prefill, &decode, shape);
        plan.add_scores(batch, &device_rows, capacity);
        plan.kept_states = batch.store_hidden.iter().map(|&(row, block)| (device_rows[row], block as usize)).collect();
        Ok(plan)
    }

    /// Adds the rows' tokens, slots in the cache, and positions.
    fn add_rows(&mut self, batch: &ForwardBatch, order: &[&Chunk]) {
        let rows = order.iter().flat_map(|chunk| chunk.rows.clone());
        self.tokens = self.push_ints(rows.map(|row| batch.tokens[row] as i32));
        let (mut slots, mut positions) = (Vec::new(), Vec::new());
        for chunk in order {
            for position in chunk.start..chunk.start + chunk.rows.len() {
                let block = chunk.blocks[position / BLOCK_TOKENS] as usize;
                slots.push((block * BLOCK_TOKENS + position % BLOCK_TOKENS) as i32);
                positions.push(position as i32);
            }
        }
        self.slots = self.push_ints(slots.into_iter());
        self.positions = self.push_ints(positions.into_iter());
    }

    /// Adds the two attention launches.
    fn add_attention(&mut self, prefill: &[&Chunk], decode: &[&Chunk], shape: &ModelShape) {
        let kernel = AttentionKernel::Prefill { padded_head_dim: shape.padded_head_dim as u32 };
        self.prefill = self.attention_launch(prefill, 0, kernel);
        let kernel = AttentionKernel::Decode { max_table_width: shape.max_length.div_ceil(BLOCK_TOKENS) };
        self.decode = self.attention_launch(decode, self.prefill.rows.end, kernel);
    }

    /// Adds the scores: their hidden states, tokens and options.
    fn add_scores(&mut self, batch: &ForwardBatch, device_rows: &[usize], capacity: &Capacity) {
        self.scored = self.push_ints(batch.scores.iter().map(|score| match score.from {
            Hidden::Row(row) => (capacity.blocks + device_rows[row]) as i32,
            Hidden::Block(block) => block as i32,
        }));
        self.targets = self.push_ints(batch.scores.iter().map(|score| match score.choice {
            TokenChoice::Given(token) => token as i32,
            TokenChoice::Sampled(_) => 0,
        }));
        for (at, score) in batch.scores.iter().enumerate() {
            if let TokenChoice::Sampled(sample) = score.choice {
                self.sampled.push((at, sample));
            }
        }
        self.options = batch.scores.iter().map(|score| score.options.clone()).collect();
        self.top = self.options.iter().map(|options| options.top.into()).max().unwrap_or(0);
    }

    /// Appends integers and returns their range.
    fn push_ints(&mut self, values: impl Iterator<Item = i32>) -> Range<usize> {
        let from = self.ints.len();
        self.ints.extend(values);
        from..self.ints.len()
    }

    /// Packs the sequences of one launch: block tables, context lengths, first rows and, for prefill, tiles of queries.
    fn attention_launch(&mut self, chunks: &[&Chunk], first: usize, kernel: AttentionKernel) -> AttentionLaunch {
        let end = |chunk: &Chunk| chunk.start + chunk.rows.len();
        let width = chunks.iter().map(|chunk| end(chunk).div_ceil(BLOCK_TOKENS)).max().unwrap_or(0);
        let (width, padded_head_dim) = match kernel {
            AttentionKernel::Prefill { padded_head_dim } => (width, Some(padded_head_dim)),
            // Use few widths, so that passes repeat and can be replayed.
            AttentionKernel::Decode { max_table_width } => (width.next_power_of_two().min(max_table_width), None),
        };
        let table = self.push_ints(chunks.iter().flat_map(|chunk| {
            let used = end(chunk).div_ceil(BLOCK_TOKENS);
            let blocks = chunk.blocks[..used].iter().map(|&block| block as i32);
            blocks.chain(std::iter::repeat_n(0, width - used))
        }));
        let contexts = self.push_ints(chunks.iter().map(|chunk| end(chunk) as i32));
        let lengths: Vec<(u32, u32)> =
            chunks.iter().map(|chunk| (end(chunk) as u32, chunk.rows.len() as u32)).collect();
        let mut start = first;
        let mut starts = vec![first as i32];
        for chunk in chunks {
            start += chunk.rows.len();
            starts.push(start as i32);
        }
        let starts = self.push_ints(starts.into_iter());
        let tiles = padded_head_dim.map(|dimensions| query_tiles(dimensions, &lengths)).unwrap_or_default();
        let tiles = self.push_ints(tiles.into_iter().flatten());
        AttentionLaunch {
            rows: first..start,
            sequences: chunks.len(),
            table,
            table_width: width,
            contexts,
            starts,
            tiles,
        }
    }
}

/// Splits the chunks into those of the prefill launch and those of the decode launch. The decode launch gets the chunks
/// of a single token if the decode kernel supports the model, and none otherwise.
fn split_chunks<'a>(batch: &'a ForwardBatch, shape: &ModelShape) -> (Vec<&'a Chunk>, Vec<&'a Chunk>) {
    let is_prefill = |chunk: &&Chunk| !shape.has_decode_kernel() || chunk.rows.len() > 1;
    batch.chunks.iter().filter(|chunk| !chunk.rows.is_empty()).partition(is_prefill)
}

/// Returns, for each row of the batch, its index in the device's order.
fn device_rows(rows: usize, order: &[&Chunk]) -> Vec<usize> {
    let mut device_rows = vec![0; rows];
    for (at, row) in order.iter().flat_map(|chunk| chunk.rows.clone()).enumerate() {
        device_rows[row] = at;
    }
    device_rows
}

/// Checks that every index of a batch is in range.
fn check_batch(batch: &ForwardBatch, shape: &ModelShape, capacity: &Capacity) -> Result<(), BackendError> {
    let within = |what: &str, value: usize, limit: usize| match value < limit {
        true => Ok(()),
        false => Err(BackendError(format!("{what} is {value}, but must be below {limit}"))),
    };
    within("the number of tokens", batch.tokens.len(), capacity.rows + 1)?;
    within("the number of sequences", batch.chunks.len(), capacity.chunks + 1)?;
    within("the number of scores", batch.scores.len(), capacity.scores() + 1)?;
    let mut row = 0;
    for chunk in &batch.chunks {
        let end = chunk.start + chunk.rows.len();
        if chunk.rows.start != row || chunk.blocks.len() * BLOCK_TOKENS < end {
            return Err(BackendError(format!(
                "a chunk must start at row {row} and have blocks for all positions; got rows {:?} and {} blocks",
                chunk.rows,
                chunk.blocks.len()
            )));
        }
        row = chunk.rows.end;
        within("a sequence's length", end, shape.max_length + 1)?;
        chunk.blocks.iter().try_for_each(|&block| within("a block", block as usize, capacity.blocks))?;
    }
    if row != batch.tokens.len() {
        return Err(BackendError(format!("chunks have {row} rows, but there are {} tokens", batch.tokens.len())));
    }
    batch.tokens.iter().try_for_each(|&token| within("a token id", token as usize, shape.vocab))?;
    for score in &batch.scores {
        if let TokenChoice::Given(target) = score.choice {
            within("a target token id", target as usize, shape.vocab)?;
        }
        if let Some(largest) = score.options.subset.as_deref().and_then(Subset::largest) {
            within("a token id of a subset", largest as usize, shape.vocab)?;
        }
        within("the number of most probable tokens", score.options.top.into(), LARGEST_TOP as usize + 1)?;
        match score.from {
            Hidden::Row(from) => within("a scored row", from, row)?,
            Hidden::Block(block) => within("a scored block", block as usize, capacity.blocks)?,
        }
    }
    for &(from, block) in &batch.store_hidden {
        within("the row of a kept state", from, row)?;
        within("the block of a kept state", block as usize, capacity.blocks)?;
    }
    for copy in &batch.copies {
        within("a copied block", copy.from.max(copy.to) as usize, capacity.blocks)?;
        within("the number of copied tokens", copy.tokens, BLOCK_TOKENS + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use surprisal_model::LlamaConfig;

    use super::*;
    use crate::backend::ScoreRow;
    use crate::cuda::config::{CudaConfig, Precision};
    use crate::parallel::rank_slice::RankSlice;

    /// Returns the shape of a model with a head dimension of 64 and sequences of up to `max_length` tokens.
    fn shape(capacity: &Capacity, max_length: usize) -> ModelShape {
        let model = r#"{
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1,
            "num_hidden_layers": 1, "vocab_size": 10, "max_position_embeddings": 2048
        }"#;
        let config = CudaConfig {
            weights: Precision::Bf16,
            cache: Precision::Bf16,
            cache_bytes: None,
            max_length: Some(max_length),
            batch_tokens: capacity.rows,
            batch_sequences: capacity.chunks,
        };
        ModelShape::new(&LlamaConfig::parse(model).unwrap(), RankSlice::WHOLE, &config).unwrap()
    }

    /// Checks that the largest plan has as many integers as the capacity allows. The batch is the end of the longest
    /// sequence: its tokens fill the batch, span two tiles, and are all scored, as is a token after a kept state.
    #[test]
    fn the_largest_plan_fits() {
        let capacity = Capacity { rows: 40, chunks: 1, blocks: 33 };
        let shape = shape(&capacity, 1033);
        let score = |from| ScoreRow { from, choice: TokenChoice::Given(1), options: PositionOptions::default() };
        let batch = ForwardBatch {
            tokens: vec![1; 40],
            chunks: vec![Chunk { rows: 0..40, start: 992, blocks: (0..33).collect() }],
            scores: std::iter::once(Hidden::Block(30)).chain((0..40).map(Hidden::Row)).map(score).collect(),
            ..ForwardBatch::default()
        };
        let plan = BatchPlan::new(&batch, &shape, &capacity).unwrap();
        assert_eq!(plan.ints.len(), 243);
        assert_eq!(capacity.ints(&shape), 243);
    }
}
