//! A running query: its blocks, what is known of it, its next chunk, and what of it others may find.

use crate::backend::{BLOCK_TOKENS, BlockCopy, BlockId, Chunk, ForwardBatch, Hidden, ScoreRow};
use crate::cache::{KvCache, Prefix};
use crate::chain::Chain;
use crate::scheduler::QueryId;
use crate::scorer::Query;

/// A query that holds its blocks.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: QueryId,
    pub(crate) query: Query,
    /// Block table for all tokens but the last.
    pub(crate) blocks: Vec<BlockId>,
    /// Tokens found in the cache.
    pub(crate) cached: usize,
    /// Tokens with keys and values, those found and those computed.
    pub(crate) computed: usize,
    /// Known log-probabilities of `tokens[score_from..]`.
    pub(crate) logprobs: Vec<f32>,
    /// A block that the first chunk reads, held until it is done.
    pub(crate) borrowed: Option<BlockId>,
    /// For the first chunk: what to copy, and the block whose hidden state predicts the first token.
    copy: Option<BlockCopy>,
    hidden: Option<BlockId>,
    /// Blocks that can be found by others, and the chain to their end.
    published: usize,
    chain: Chain,
}

/// What one forward pass does for a running query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: QueryId,
    pub(crate) rows: usize,
    pub(crate) scores: usize,
}

impl Running {
    /// A query with its blocks. It starts where the prefix ends, or one token earlier if that token's hidden state is
    /// needed and not kept.
    pub(crate) fn new(id: QueryId, query: Query, prefix: Prefix, blocks: Vec<BlockId>) -> Self {
        let needs_hidden = prefix.computed > 0 && query.score_from + prefix.logprobs.len() == prefix.computed;
        let hidden = prefix.hidden.filter(|_| needs_hidden);
        let computed = prefix.computed - usize::from(needs_hidden && hidden.is_none());
        let own = prefix.blocks.len();
        let partial = prefix.partial.filter(|&(_, tokens)| tokens > 0 && own < blocks.len());
        Self {
            id,
            query,
            cached: computed,
            computed,
            published: own,
            chain: prefix.chain,
            logprobs: prefix.logprobs,
            copy: partial.map(|(from, tokens)| BlockCopy { from, to: blocks[own], tokens }),
            hidden,
            borrowed: prefix.partial.map(|(block, _)| block),
            blocks,
        }
    }

    /// Tokens that run through the model in all: every one but the last.
    pub(crate) fn target(&self) -> usize {
        self.query.tokens.len() - 1
    }

    /// Tokens that others can find in the cache.
    pub(crate) fn published(&self) -> usize {
        self.published * BLOCK_TOKENS
    }

    /// Index of the first scored token whose log-probability is unknown.
    pub(crate) fn next_score(&self) -> usize {
        self.query.score_from + self.logprobs.len()
    }

    /// The known log-probabilities of `tokens[from..to]`.
    fn known(&self, from: usize, to: usize) -> Vec<Option<f32>> {
        let score = |i: usize| i.checked_sub(self.query.score_from).and_then(|i| self.logprobs.get(i).copied());
        (from..to).map(score).collect()
    }

    /// Adds the next tokens to a batch, as many as the budget leaves; nothing if it leaves none.
    pub(crate) fn add_chunk(&mut self, batch: &mut ForwardBatch, budget: usize) -> Option<Part> {
        let base = batch.tokens.len();
        let rows = (self.target() - self.computed).min(budget.saturating_sub(base));
        let end = self.computed + rows;
        let scores = self.add_scores(batch, base, end);
        if rows + scores == 0 {
            return None;
        }
        for position in self.computed..end {
            if (position + 1) % BLOCK_TOKENS == 0 || position + 1 == self.target() {
                batch.keep.push((base + position - self.computed, self.blocks[position / BLOCK_TOKENS]));
            }
        }
        batch.copies.extend(self.copy.take());
        if rows > 0 {
            batch.tokens.extend_from_slice(&self.query.tokens[self.computed..end]);
            let blocks = self.blocks[..end.div_ceil(BLOCK_TOKENS)].to_vec();
            batch.chunks.push(Chunk { rows: base..base + rows, start: self.computed, blocks });
        }
        Some(Part { id: self.id, rows, scores })
    }

    /// Adds the scores that the tokens before `end` predict; returns how many.
    fn add_scores(&self, batch: &mut ForwardBatch, base: usize, end: usize) -> usize {
        let before = batch.scores.len();
        for i in self.next_score()..self.query.tokens.len().min(end + 1) {
            let from = match ((i - 1).checked_sub(self.computed), self.hidden) {
                (Some(row), _) => Hidden::Row(base + row),
                (None, Some(block)) => Hidden::Block(block),
                (None, None) => break,
            };
            batch.scores.push(ScoreRow { from, target: self.query.tokens[i] });
        }
        batch.scores.len() - before
    }

    /// Notes what a forward pass computed, gives back what it borrowed, and publishes what is finished.
    pub(crate) fn advance(&mut self, rows: usize, logprobs: &[f32], cache: &mut KvCache) {
        self.logprobs.extend_from_slice(logprobs);
        self.computed += rows;
        self.copy = None;
        self.hidden = None;
        if let Some(block) = self.borrowed.take() {
            cache.release(block);
        }
        self.publish(cache);
    }

    /// Makes finished blocks findable, and the unfinished last one when the query is done.
    fn publish(&mut self, cache: &mut KvCache) {
        let (len, target) = (self.query.tokens.len(), self.target());
        loop {
            let from = self.published();
            let full = from + BLOCK_TOKENS <= self.computed;
            let last = self.computed == target && target > from;
            let (to, computed) = match (full, last) {
                (true, _) => (from + BLOCK_TOKENS, BLOCK_TOKENS),
                (false, true) => (len, target - from),
                (false, false) => return,
            };
            let logprobs = self.known(from, to);
            let block = self.blocks[self.published];
            let (chain, kept) = cache.publish(block, self.chain, &self.query.tokens[from..to], computed, logprobs);
            self.blocks[self.published] = kept;
            self.chain = chain;
            self.published += 1;
        }
    }

    /// Gives back all blocks, the last first, so that the beginning of a prefix outlives its end.
    pub(crate) fn release(&self, cache: &mut KvCache) {
        for &block in self.borrowed.iter().chain(self.blocks.iter().rev()) {
            cache.release(block);
        }
    }
}
