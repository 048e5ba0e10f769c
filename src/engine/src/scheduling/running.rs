//! A running query: its blocks, its next chunk, its results so far, and what of it others may find in the cache.

use crate::backend::{
    BLOCK_TOKENS, BlockCopy, BlockId, Chunk, ForwardBatch, Hidden, ScoreRow, TokenChoice, TokenScore,
};
use crate::scheduling::cache::{CachedPrefix, KnownScore, KvCache};
use crate::scheduling::job::{Job, QueryId};
use crate::scheduling::prefix_hash::PrefixHash;
use crate::scheduling::queue::PrefixDependency;
use crate::scorer::{FinishReason, GeneratedToken, Generation, PositionDetails, Query, QueryEvent, Scores};

/// A query that holds its blocks.
#[derive(Debug)]
pub(crate) struct RunningQuery {
    pub(crate) id: QueryId,
    /// The query; sampled tokens are added to it.
    pub(crate) query: Query,
    /// The parameters of sampling, while there are tokens to sample.
    generation: Option<Generation>,
    /// Tokens sampled so far.
    sampled: usize,
    /// The most tokens that the sequence can have.
    max_len: usize,
    /// True after a forward pass with others failed: the query gets the next pass for itself.
    pub(crate) retry_alone: bool,
    /// Block table for all tokens, including those to be sampled, but the last.
    blocks: Vec<BlockId>,
    /// Tokens with keys and values: those found in the cache and those computed.
    computed: usize,
    /// Tokens reused from the cache.
    cached: usize,
    /// Tokens whose keys and values the cache had, reused or not.
    cached_kv: usize,
    /// The scores of `tokens[score_from..]`, as far as they are known.
    scores: Vec<KnownScore>,
    /// The details of the same positions, if the query asks for any.
    positions: Vec<PositionDetails>,
    /// For the first chunk: the block that it reads, held until it is done; what to copy; and the block whose hidden
    /// state predicts the first token.
    borrowed: Option<BlockId>,
    copy: Option<BlockCopy>,
    hidden: Option<BlockId>,
    /// Number of blocks that others can find, and the hash up to their end.
    published: usize,
    hash: PrefixHash,
}

/// The part of a forward pass that belongs to one running query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScheduledChunk {
    pub(crate) id: QueryId,
    /// Tokens that run through the model.
    pub(crate) rows: usize,
    /// Scores that the backend returns.
    pub(crate) scores: usize,
    /// True if the last score is that of a sampled token.
    pub(crate) samples: bool,
}

impl RunningQuery {
    /// Starts a query with its blocks, at the end of its cached prefix, or one token earlier if that token's hidden
    /// state is needed and not kept. `cached_kv` is the number of tokens whose keys and values the cache has.
    pub(crate) fn new(job: Job, prefix: CachedPrefix, blocks: Vec<BlockId>, cached_kv: usize) -> Self {
        let (positions, max_len) = (job.cached_positions(&prefix.scores), job.max_len());
        let Job { id, query, generation } = job;
        let needs_hidden = prefix.computed > 0 && query.score_from + prefix.scores.len() == prefix.computed;
        let hidden = prefix.hidden.filter(|_| needs_hidden);
        let computed = prefix.computed - usize::from(needs_hidden && hidden.is_none());
        let shared = prefix.blocks.len();
        let partial = prefix.partial.filter(|&(_, tokens)| tokens > 0 && shared < blocks.len());
        Self {
            id,
            query,
            generation,
            sampled: 0,
            max_len,
            retry_alone: false,
            computed,
            cached: computed,
            cached_kv,
            scores: prefix.scores,
            positions,
            borrowed: prefix.partial.map(|(block, _)| block),
            copy: partial.map(|(from, tokens)| BlockCopy { from, to: blocks[shared], tokens }),
            hidden,
            published: shared,
            hash: prefix.hash,
            blocks,
        }
    }

    pub(crate) fn priority(&self) -> i32 {
        self.query.scheduling.priority
    }

    /// Returns how many tokens must run through the model, as far as is known: all but the last, unless one is to be
    /// sampled after it.
    fn tokens_to_compute(&self) -> usize {
        self.query.tokens.len() - usize::from(self.generation.is_none())
    }

    /// Returns how many more tokens the sequence could have, or could have had if it had not ended.
    pub(crate) fn unsampled_tokens(&self) -> usize {
        self.max_len - self.query.tokens.len()
    }

    /// Returns true when everything is known.
    pub(crate) fn is_done(&self) -> bool {
        self.generation.is_none() && self.computed == self.tokens_to_compute()
    }

    /// Returns true once the query computes one token a pass.
    pub(crate) fn is_decoding(&self) -> bool {
        self.sampled > 0
    }

    /// Returns how many tokens others can find in the cache.
    pub(crate) fn published_tokens(&self) -> usize {
        self.published * BLOCK_TOKENS
    }

    /// Returns how many tokens others will be able to find: a block that is not full is published only when there is
    /// nothing more to sample.
    fn publishable_tokens(&self) -> usize {
        match self.generation {
            Some(_) => self.tokens_to_compute() / BLOCK_TOKENS * BLOCK_TOKENS,
            None => self.tokens_to_compute(),
        }
    }

    /// Returns how far `job` should wait for this query, if this query is about to compute much of what `job` needs
    /// after its cached prefix.
    pub(crate) fn dependency_of(&self, job: &Job, prefix: &CachedPrefix) -> Option<PrefixDependency> {
        let required = job.required_scores();
        let remaining = (job.query.tokens.len() - 1).saturating_sub(prefix.computed);
        let first_unknown = required.from + prefix.scores.len();
        let common = job.reusable_tokens().iter().zip(&self.query.tokens).take_while(|(a, b)| a == b).count();
        // `job` must recompute everything from the first token on whose required score this query does not learn.
        let learns_scores = self.query.score_from <= first_unknown && (!required.top1 || self.query.options.top > 0);
        let useful = if learns_scores { common } else { common.min(first_unknown) };
        let tokens = useful.min(self.publishable_tokens());
        let gain = tokens.saturating_sub(prefix.computed);
        let is_worth_it = gain >= BLOCK_TOKENS || (gain > 0 && gain * 4 >= remaining);
        (is_worth_it && self.published_tokens() < tokens).then_some(PrefixDependency { on: self.id, tokens })
    }

    /// Returns the index of the first scored token whose log-probability is unknown.
    pub(crate) fn next_score(&self) -> usize {
        self.query.score_from + self.scores.len()
    }

    /// Adds the next tokens to a batch, as many as the budget leaves; nothing if it leaves none.
    pub(crate) fn add_chunk(&self, batch: &mut ForwardBatch, budget: usize) -> Option<ScheduledChunk> {
        let first_row = batch.tokens.len();
        let rows = (self.tokens_to_compute() - self.computed).min(budget.saturating_sub(first_row));
        let end = self.computed + rows;
        let scores_before = batch.scores.len();
        self.add_scores(batch, first_row, end);
        let samples = self.add_sample(batch, first_row, end);
        let scores = batch.scores.len() - scores_before;
        if rows + scores == 0 {
            return None;
        }
        for position in self.computed..end {
            if (position + 1) % BLOCK_TOKENS == 0 || position + 1 == self.tokens_to_compute() {
                let row = first_row + position - self.computed;
                batch.store_hidden.push((row, self.blocks[position / BLOCK_TOKENS]));
            }
        }
        batch.copies.extend(self.copy);
        if rows > 0 {
            batch.tokens.extend_from_slice(&self.query.tokens[self.computed..end]);
            let blocks = self.blocks[..end.div_ceil(BLOCK_TOKENS)].to_vec();
            batch.chunks.push(Chunk { rows: first_row..first_row + rows, start: self.computed, blocks });
        }
        Some(ScheduledChunk { id: self.id, rows, scores, samples })
    }

    /// Adds the scores that the tokens before `end` predict.
    fn add_scores(&self, batch: &mut ForwardBatch, first_row: usize, end: usize) {
        for i in self.next_score()..self.query.tokens.len().min(end + 1) {
            let Some(from) = self.hidden_before(i, first_row) else { return };
            let choice = TokenChoice::Given(self.query.tokens[i]);
            batch.scores.push(ScoreRow { from, choice, options: self.query.options.clone() });
        }
    }

    /// Adds the next token to sample, if the one before it is computed by then; returns whether it did.
    fn add_sample(&self, batch: &mut ForwardBatch, first_row: usize, end: usize) -> bool {
        let Some(generation) = &self.generation else { return false };
        if end < self.tokens_to_compute() {
            return false;
        }
        let Some(from) = self.hidden_before(end, first_row) else { return false };
        let choice = TokenChoice::Sampled(generation.sampling.at(end));
        batch.scores.push(ScoreRow { from, choice, options: generation.options.clone() });
        true
    }

    /// Returns the hidden state that predicts token `i`, if it is known once the batch has run.
    fn hidden_before(&self, i: usize, first_row: usize) -> Option<Hidden> {
        match (i - 1).checked_sub(self.computed) {
            Some(row) => Some(Hidden::Row(first_row + row)),
            None => self.hidden.map(Hidden::Block),
        }
    }

    /// Records what a forward pass computed and publishes finished blocks; returns what became known.
    pub(crate) fn advance(
        &mut self,
        chunk: &ScheduledChunk,
        mut scores: Vec<TokenScore>,
        cache: &mut KvCache,
    ) -> Vec<QueryEvent> {
        let sampled = if chunk.samples { scores.pop() } else { None };
        self.scores.extend(scores.iter().map(KnownScore::from));
        self.positions.extend(scores.into_iter().filter_map(|score| Some(*score.position?)));
        self.computed += chunk.rows;
        self.end_first_chunk(cache);
        let mut events = Vec::new();
        if self.sampled == 0 && self.computed == self.tokens_to_compute() {
            events.push(QueryEvent::Scores(self.take_scores()));
        }
        if let Some(score) = sampled {
            events.push(QueryEvent::Token(self.append_sampled(score)));
        }
        self.publish(cache);
        events
    }

    /// Clears what only the pass that has just run needed.
    fn end_first_chunk(&mut self, cache: &mut KvCache) {
        self.retry_alone = false;
        self.copy = None;
        self.hidden = None;
        if let Some(block) = self.borrowed.take() {
            cache.release(block);
        }
    }

    /// Returns the scores of the query's own tokens, all of which are known.
    fn take_scores(&mut self) -> Scores {
        let computed_end = self.tokens_to_compute();
        Scores {
            logprobs: self.scores.iter().map(|score| score.logprob).collect(),
            positions: std::mem::take(&mut self.positions),
            cached_tokens: self.cached,
            computed_tokens: computed_end - self.cached,
            recomputed_tokens: self.cached_kv.min(computed_end).saturating_sub(self.cached),
        }
    }

    /// Adds a sampled token to the sequence.
    fn append_sampled(&mut self, score: TokenScore) -> GeneratedToken {
        self.scores.push(KnownScore::from(&score));
        let TokenScore { token: id, logprob, position } = score;
        self.query.tokens.push(id);
        self.sampled += 1;
        let finish_reason = match &self.generation {
            Some(generation) if generation.stop.contains(&id) => Some(FinishReason::Stop),
            Some(generation) if self.sampled < generation.max_tokens => None,
            _ => Some(FinishReason::Length),
        };
        if finish_reason.is_some() {
            self.generation = None;
        }
        let position = position.map(|position| *position).unwrap_or_default();
        GeneratedToken { id, logprob, position, finish_reason }
    }

    /// Makes finished blocks findable, and the unfinished last one when the query is done.
    fn publish(&mut self, cache: &mut KvCache) {
        let (len, computed_end) = (self.query.tokens.len(), self.tokens_to_compute());
        loop {
            let start = self.published_tokens();
            let (end, computed) = if start + BLOCK_TOKENS <= self.computed {
                (start + BLOCK_TOKENS, BLOCK_TOKENS)
            } else if self.computed == computed_end && computed_end > start {
                (len, computed_end - start)
            } else {
                return;
            };
            let scores = (start..end).map(|i| self.score_of(i)).collect();
            let block = self.blocks[self.published];
            let (hash, kept) = cache.publish(block, self.hash, &self.query.tokens[start..end], computed, scores);
            self.blocks[self.published] = kept;
            self.hash = hash;
            self.published += 1;
        }
    }

    /// Returns the score of token `i`, if it is known.
    fn score_of(&self, i: usize) -> Option<KnownScore> {
        self.scores.get(i.checked_sub(self.query.score_from)?).copied()
    }

    /// Gives back all blocks, the last first, so that the beginning of a prefix outlives its end.
    pub(crate) fn release(&self, cache: &mut KvCache) {
        for &block in self.borrowed.iter().chain(self.blocks.iter().rev()) {
            cache.release(block);
        }
    }
}
