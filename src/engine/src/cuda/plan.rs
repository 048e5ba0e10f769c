//! From a batch to the integers the kernels read: checked, since kernels trust them, and packed for one copy.

use std::ops::Range;

use surprisal_kernels::attention::query_tiles;
use surprisal_kernels::logprobs::LARGEST_TOP;

use super::shape::Shape;
use crate::backend::{BLOCK_TOKENS, BackendError, Chunk, ForwardBatch, Hidden, TokenChoice};
use crate::sampling::Sample;
use crate::scorer::PositionOptions;
use crate::scorer::Subset;

/// The most that one batch holds; memory is taken for it when the model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Tokens.
    pub(super) rows: usize,
    /// Sequences.
    pub(super) chunks: usize,
    /// KV blocks of the cache.
    pub(super) blocks: usize,
}

impl Room {
    /// Log-probabilities of one batch: one a row, and one a sequence from a hidden state that was kept.
    pub(super) fn scores(&self) -> usize {
        self.rows + self.chunks
    }

    /// Integers of the largest plan.
    pub(super) fn ints(&self, shape: &Shape) -> usize {
        let width = shape.max_length.div_ceil(BLOCK_TOKENS);
        let tiles = self.rows / 64 + 2 * self.chunks;
        // The starts of either group have an end.
        3 * self.rows + self.chunks * (width + 2) + 2 + 2 * tiles + 2 * self.scores()
    }
}

/// Which kernel a group is for.
#[derive(Clone, Copy)]
enum Kernel {
    /// Queries of so many dimensions come in tiles.
    Prefill { head: u32 },
    /// Tables have at most so many blocks.
    Decode { widest: usize },
}

/// Sequences of one kernel's launch. Ranges are of [`Plan::ints`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Rows of the device's order, consecutive.
    pub(super) rows: Range<usize>,
    pub(super) sequences: usize,
    pub(super) table: Range<usize>,
    pub(super) table_width: usize,
    pub(super) contexts: Range<usize>,
    pub(super) starts: Range<usize>,
    pub(super) tiles: Range<usize>,
}

/// A batch as the device runs it: chunks of several tokens first, then those of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) ints: Vec<i32>,
    pub(super) tokens: Range<usize>,
    pub(super) positions: Range<usize>,
    pub(super) slots: Range<usize>,
    pub(super) prefill: Group,
    pub(super) decode: Group,
    /// What is scored: rows of the hidden store, where the batch's rows follow the blocks.
    pub(super) scored: Range<usize>,
    /// Their tokens; those yet to be drawn are 0.
    pub(super) targets: Range<usize>,
    /// Which scores draw their token, and how.
    pub(super) drawn: Vec<(usize, Sample)>,
    /// What else is asked of each score.
    pub(super) options: Vec<PositionOptions>,
    /// The longest list of most probable tokens among them.
    pub(super) top: usize,
    /// Rows of the device's order whose hidden state is kept, and where.
    pub(super) keep: Vec<(usize, usize)>,
}

impl Plan {
    /// # Errors
    ///
    /// The batch does not fit, or names what does not exist.
    pub(super) fn new(batch: &ForwardBatch, shape: &Shape, room: &Room) -> Result<Self, BackendError> {
        check(batch, shape, room)?;
        let decodes = |chunk: &&Chunk| shape.decodes() && chunk.rows.len() == 1;
        let (single, several): (Vec<_>, Vec<_>) =
            batch.chunks.iter().filter(|chunk| !chunk.rows.is_empty()).partition(decodes);
        let order: Vec<&Chunk> = several.iter().chain(&single).copied().collect();
        let mut place = vec![0; batch.tokens.len()];
        for (at, row) in order.iter().flat_map(|chunk| chunk.rows.clone()).enumerate() {
            place[row] = at;
        }

        let mut plan = Self::default();
        let rows = order.iter().flat_map(|chunk| chunk.rows.clone());
        plan.tokens = plan.put(rows.map(|row| batch.tokens[row] as i32));
        let positions =
            || order.iter().flat_map(|chunk| (chunk.start..).take(chunk.rows.len()).map(move |p| (p, chunk)));
        let slot = |(position, chunk): (usize, &&Chunk)| {
            chunk.blocks[position / BLOCK_TOKENS] as usize * BLOCK_TOKENS + position % BLOCK_TOKENS
        };
        plan.slots = plan.put(positions().map(|at| slot(at) as i32));
        plan.positions = plan.put(positions().map(|(position, _)| position as i32));
        let widest = shape.max_length.div_ceil(BLOCK_TOKENS);
        plan.prefill = plan.group(&several, 0, Kernel::Prefill { head: shape.head as u32 });
        plan.decode = plan.group(&single, plan.prefill.rows.end, Kernel::Decode { widest });
        let scored = batch.scores.iter().map(|score| match score.from {
            Hidden::Row(row) => (room.blocks + place[row]) as i32,
            Hidden::Block(block) => block as i32,
        });
        plan.scored = plan.put(scored);
        plan.targets = plan.put(batch.scores.iter().map(|score| match score.choice {
            TokenChoice::Given(token) => token as i32,
            TokenChoice::Sampled(_) => 0,
        }));
        let drawn = batch.scores.iter().enumerate().filter_map(|(at, score)| match score.choice {
            TokenChoice::Given(_) => None,
            TokenChoice::Sampled(draw) => Some((at, draw)),
        });
        plan.drawn = drawn.collect();
        plan.options = batch.scores.iter().map(|score| score.options.clone()).collect();
        plan.top = plan.options.iter().map(|options| options.top.into()).max().unwrap_or(0);
        plan.keep = batch.store_hidden.iter().map(|&(row, block)| (place[row], block as usize)).collect();
        Ok(plan)
    }

    fn put(&mut self, values: impl Iterator<Item = i32>) -> Range<usize> {
        let from = self.ints.len();
        self.ints.extend(values);
        from..self.ints.len()
    }

    /// Tables of some chunks, and tiles of queries for prefill.
    fn group(&mut self, chunks: &[&Chunk], first: usize, kernel: Kernel) -> Group {
        let end = |chunk: &Chunk| chunk.start + chunk.rows.len();
        let width = chunks.iter().map(|chunk| end(chunk).div_ceil(BLOCK_TOKENS)).max().unwrap_or(0);
        let (width, head) = match kernel {
            Kernel::Prefill { head } => (width, Some(head)),
            // Of few widths, so that passes come again.
            Kernel::Decode { widest } => (width.next_power_of_two().min(widest), None),
        };
        let table = self.put(chunks.iter().flat_map(|chunk| {
            let used = end(chunk).div_ceil(BLOCK_TOKENS);
            let blocks = chunk.blocks[..used].iter().map(|&block| block as i32);
            blocks.chain(std::iter::repeat_n(0, width - used))
        }));
        let contexts = self.put(chunks.iter().map(|chunk| end(chunk) as i32));
        let lengths: Vec<(u32, u32)> =
            chunks.iter().map(|chunk| (end(chunk) as u32, chunk.rows.len() as u32)).collect();
        let mut start = first;
        let mut starts = vec![first as i32];
        for chunk in chunks {
            start += chunk.rows.len();
            starts.push(start as i32);
        }
        let starts = self.put(starts.into_iter());
        let tiles = self.put(head.into_iter().flat_map(|head| query_tiles(head, &lengths)).flatten());
        Group { rows: first..start, sequences: chunks.len(), table, table_width: width, contexts, starts, tiles }
    }
}

/// Whether every index of a batch lies in what it indexes.
fn check(batch: &ForwardBatch, shape: &Shape, room: &Room) -> Result<(), BackendError> {
    let within = |what: &str, value: usize, limit: usize| match value < limit {
        true => Ok(()),
        false => Err(BackendError(format!("{what} is {value}, but must be below {limit}"))),
    };
    within("the number of tokens", batch.tokens.len(), room.rows + 1)?;
    within("the number of sequences", batch.chunks.len(), room.chunks + 1)?;
    within("the number of scores", batch.scores.len(), room.scores() + 1)?;
    let mut row = 0;
    for chunk in &batch.chunks {
        let end = chunk.start + chunk.rows.len();
        if chunk.rows.start != row || chunk.blocks.len() * BLOCK_TOKENS < end {
            return Err(BackendError(format!(
                "a chunk at row {row} has rows {:?} and {} blocks",
                chunk.rows,
                chunk.blocks.len()
            )));
        }
        row = chunk.rows.end;
        within("a sequence's length", end, shape.max_length + 1)?;
        chunk.blocks.iter().try_for_each(|&block| within("a block", block as usize, room.blocks))?;
    }
    if row != batch.tokens.len() {
        return Err(BackendError(format!("chunks have {row} rows, but there are {} tokens", batch.tokens.len())));
    }
    batch.tokens.iter().try_for_each(|&token| within("a token", token as usize, shape.vocab))?;
    for score in &batch.scores {
        if let TokenChoice::Given(target) = score.choice {
            within("a target", target as usize, shape.vocab)?;
        }
        if let Some(largest) = score.options.subset.as_deref().and_then(Subset::largest) {
            within("a token of a subset", largest as usize, shape.vocab)?;
        }
        within("the number of most probable tokens", score.options.top.into(), LARGEST_TOP as usize + 1)?;
        match score.from {
            Hidden::Row(from) => within("a scored row", from, row)?,
            Hidden::Block(block) => within("a scored block", block as usize, room.blocks)?,
        }
    }
    for &(from, block) in &batch.store_hidden {
        within("a kept row", from, row)?;
        within("a kept row's block", block as usize, room.blocks)?;
    }
    for copy in &batch.copies {
        within("a copied block", copy.from.max(copy.to) as usize, room.blocks)?;
        within("the tokens copied", copy.tokens, BLOCK_TOKENS + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use surprisal_model::LlamaConfig;

    use super::*;
    use crate::backend::ScoreRow;
    use crate::cuda::{CudaConfig, Precision};
    use crate::part::Part;

    /// Of heads of 64, sequences of up to so many tokens.
    fn shape(room: &Room, max_length: usize) -> Shape {
        let model = r#"{
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1,
            "num_hidden_layers": 1, "vocab_size": 10, "max_position_embeddings": 2048
        }"#;
        let asked = CudaConfig {
            weights: Precision::Bf16,
            cache: Precision::Bf16,
            cache_bytes: None,
            max_length: Some(max_length),
            batch_tokens: room.rows,
            batch_sequences: room.chunks,
        };
        Shape::new(&LlamaConfig::parse(model).unwrap(), Part::WHOLE, &asked).unwrap()
    }

    /// The end of the longest sequence: its tokens fill the batch, lie in two tiles, and are scored with one more, after a state
    /// that was kept.
    #[test]
    fn the_largest_plan_has_room() {
        let room = Room { rows: 40, chunks: 1, blocks: 33 };
        let shape = shape(&room, 1033);
        let score = |from| ScoreRow { from, choice: TokenChoice::Given(1), options: PositionOptions::default() };
        let batch = ForwardBatch {
            tokens: vec![1; 40],
            chunks: vec![Chunk { rows: 0..40, start: 992, blocks: (0..33).collect() }],
            scores: std::iter::once(Hidden::Block(30)).chain((0..40).map(Hidden::Row)).map(score).collect(),
            ..ForwardBatch::default()
        };
        let plan = Plan::new(&batch, &shape, &room).unwrap();
        assert_eq!(plan.ints.len(), 243);
        assert_eq!(room.ints(&shape), 243);
    }
}
