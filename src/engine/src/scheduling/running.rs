//! A running query: its blocks, its next chunk, its results so far, and the blocks that it publishes to the cache.

use crate::backend::{
    BLOCK_TOKENS, BlockCopy, BlockId, Chunk, ForwardBatch, Hidden, ScoreRow, TokenChoice, TokenScore,
};
use crate::scheduling::cache::{CachedPrefix, KnownScore, KvCache};
use crate::scheduling::client_queue::PrefixDependency;
use crate::scheduling::job::{Job, QueryId, tokens_to_compute};
use crate::scheduling::prefix_hash::PrefixHash;
use crate::scheduling::queue::Tag;
use crate::scorer::{FinishReason, GeneratedToken, Generation, PositionDetails, Query, QueryEvent, Scores};

/// A running query. It holds all blocks that it needs.
#[derive(Debug)]
pub(crate) struct RunningQuery {
    pub(crate) id: QueryId,
    /// The query; sampled tokens are appended to its tokens.
    pub(crate) query: Query,
    /// The parameters of the continuation; `None` if no more tokens are to be sampled.
    generation: Option<Box<Generation>>,
    /// `true` if the query was submitted with a continuation.
    generates: bool,
    /// Number of tokens sampled so far.
    sampled: usize,
    /// Maximum length of the sequence, in tokens.
    max_len: usize,
    /// The query's place in the order of chunks.
    pub(crate) turn: Turn,
    /// `true` if a forward pass that included other queries failed. The query's next pass then includes no other query.
    pub(crate) retry_alone: bool,
    /// Block table for all tokens of the sequence, including those to be sampled, except the last.
    blocks: Vec<BlockId>,
    /// Number of tokens with keys and values, reused from the cache or computed by this query.
    computed: usize,
    /// Number of tokens reused from the cache.
    cached: usize,
    /// Number of tokens whose keys and values were in the cache when the query started, whether or not they are reused.
    cached_kv: usize,
    /// The scores of `tokens[score_from..]` that are known so far.
    scores: Vec<KnownScore>,
    /// The details of the positions of `scores`; empty if the query requests none.
    positions: Vec<PositionDetails>,
    /// The partly matching block of the cached prefix, which the first chunk reads. It is held until that chunk is
    /// done.
    borrowed: Option<BlockId>,
    /// The copy from `borrowed` to the query's own block, made in the first chunk's forward pass.
    copy: Option<BlockCopy>,
    /// The block whose hidden state predicts the token after the cached prefix. Only the first chunk needs it.
    hidden: Option<BlockId>,
    /// Number of this query's blocks that other queries can find in the cache.
    published: usize,
    /// The hash of the prefix that the published blocks contain.
    hash: PrefixHash,
}

/// A running query's place in the order of chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// The tag of the query's first chunk.
    pub(crate) start: Tag,
    /// `true` if the query started before its turn, because it was overdue.
    pub(crate) before_turn: bool,
    /// Number of tokens that the engine had served when the query's last chunk ran.
    pub(crate) served_at: u64,
}

/// The part of a forward pass that belongs to one running query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScheduledChunk {
    pub(crate) id: QueryId,
    /// Number of tokens that run through the model.
    pub(crate) rows: usize,
    /// Number of scores that the backend returns for the chunk.
    pub(crate) scores: usize,
    /// `true` if the last of these scores belongs to a sampled token.
    pub(crate) samples: bool,
}

impl RunningQuery {
    /// Creates a running query that starts at the end of its cached prefix, or one token earlier if the hidden state of
    /// the prefix's last token is needed but not stored. `cached_kv` is the number of tokens whose keys and values are
    /// in the cache.
    pub(crate) fn new(
        job: Job,
        prefix: CachedPrefix,
        blocks: Vec<BlockId>,
        cached_kv: usize,
        turn: Turn,
        cache: &mut KvCache,
    ) -> Self {
        let (positions, max_len) = (job.cached_positions(&prefix.scores), job.max_len());
        let Job { id, query, generation } = job;
        let needs_hidden = prefix.ends_before_score(query.score_from);
        let hidden = prefix.hidden.filter(|_| needs_hidden);
        let computed = prefix.reusable_len(query.score_from);
        let shared = prefix.blocks.len();
        let partial = prefix.partial.filter(|&(_, tokens)| tokens > 0 && shared < blocks.len());
        let generates = generation.is_some();
        for &block in blocks.iter().filter(|_| generates) {
            cache.start_generating(block);
        }
        Self {
            id,
            query,
            generation,
            generates,
            sampled: 0,
            max_len,
            turn,
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

    /// Returns the tag of the query's next chunk.
    pub(crate) fn tag(&self) -> Tag {
        let Tag { priority, virtual_time } = self.turn.start;
        Tag { priority, virtual_time: virtual_time.saturating_add((self.computed - self.cached) as u64) }
    }

    /// Returns `true` if the query was submitted with a continuation.
    pub(crate) fn generates(&self) -> bool {
        self.generates
    }

    /// Returns how many of the sequence's tokens so far must run through the model.
    fn tokens_to_compute(&self) -> usize {
        tokens_to_compute(&self.query, self.generation.as_deref())
    }

    /// Returns how many of the tokens so far have yet to run through the model.
    pub(crate) fn uncomputed_tokens(&self) -> usize {
        self.tokens_to_compute() - self.computed
    }

    /// Returns how many tokens have been sampled.
    pub(crate) fn sampled_tokens(&self) -> usize {
        self.sampled
    }

    /// Returns how many of the tokens that the client was charged for have been neither computed nor sampled.
    pub(crate) fn unused_tokens(&self) -> usize {
        let unsampled = self.max_len - self.query.tokens.len();
        unsampled + if self.is_decoding() { 0 } else { self.uncomputed_tokens() }
    }

    /// Returns `true` once all results are known.
    pub(crate) fn is_done(&self) -> bool {
        self.generation.is_none() && self.computed == self.tokens_to_compute()
    }

    /// Returns `true` once the query computes one token per pass.
    pub(crate) fn is_decoding(&self) -> bool {
        self.sampled > 0
    }

    /// Returns how many of this query's tokens other queries can find in the cache.
    pub(crate) fn published_tokens(&self) -> usize {
        self.published * BLOCK_TOKENS
    }

    /// Returns how many of the tokens so far other queries will be able to find in the cache. A block that is not full
    /// is published only when no more tokens are to be sampled.
    fn publishable_tokens(&self) -> usize {
        match self.generation {
            Some(_) => self.tokens_to_compute() / BLOCK_TOKENS * BLOCK_TOKENS,
            None => self.tokens_to_compute(),
        }
    }

    /// Returns a dependency of `job` on this query if this query is about to compute much of what `job` needs after its
    /// cached prefix; otherwise `None`. Queries of different namespaces never depend on each other.
    pub(crate) fn dependency_of(&self, job: &Job, prefix: &CachedPrefix) -> Option<PrefixDependency> {
        if job.query.namespace != self.query.namespace {
            return None;
        }
        if self.published_tokens() >= self.publishable_tokens() {
            return None;
        }
        let required = job.required_scores();
        let remaining = (job.query.tokens.len() - 1).saturating_sub(prefix.computed);
        let first_unknown = required.from + prefix.scores.len();
        let (theirs, ours) = (job.reusable_tokens(), &self.query.tokens[..]);
        // Many queries may share only a long prefix that is in the cache. This avoids comparing it.
        if theirs.get(prefix.computed)? != ours.get(prefix.computed)? {
            return None;
        }
        let common = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
        // If this query does not produce the scores that `job` requires, `job` must itself compute everything from its
        // first unknown score on.
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

    /// Adds the next tokens to a batch that may have at most `budget` tokens; returns `None` if there is nothing to
    /// add.
    pub(crate) fn add_chunk(&self, batch: &mut ForwardBatch, budget: usize) -> Option<ScheduledChunk> {
        let first_row = batch.tokens.len();
        let rows = self.uncomputed_tokens().min(budget.saturating_sub(first_row));
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

    /// Adds a row for each token that has no score yet and that a token before `end` predicts.
    fn add_scores(&self, batch: &mut ForwardBatch, first_row: usize, end: usize) {
        for i in self.next_score()..self.query.tokens.len().min(end + 1) {
            let Some(from) = self.hidden_before(i, first_row) else { return };
            let choice = TokenChoice::Given(self.query.tokens[i]);
            batch.scores.push(ScoreRow { from, choice, options: self.query.options.clone() });
        }
    }

    /// Adds a row that samples the next token, if the sequence so far is computed up to `end`; returns whether it added
    /// one.
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

    /// Returns the location of the hidden state that predicts token `i`; `None` if it was not stored.
    fn hidden_before(&self, i: usize, first_row: usize) -> Option<Hidden> {
        match (i - 1).checked_sub(self.computed) {
            Some(row) => Some(Hidden::Row(first_row + row)),
            None => self.hidden.map(Hidden::Block),
        }
    }

    /// Records the results of a forward pass and publishes finished blocks; returns the query's new events.
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

    /// Clears the state that was needed only by the pass that has just run.
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

    /// Appends a sampled token to the sequence.
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

    /// Publishes full blocks and, once the query is done, its last block even if it is not full.
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
            if self.generates && kept != block {
                cache.start_generating(kept);
                cache.end_generating(block);
            }
            self.blocks[self.published] = kept;
            self.hash = hash;
            self.published += 1;
        }
    }

    /// Returns the score of token `i`, if it is known.
    fn score_of(&self, i: usize) -> Option<KnownScore> {
        self.scores.get(i.checked_sub(self.query.score_from)?).copied()
    }

    /// Releases all blocks, the last one first, so that the end of a prefix is evicted before its beginning.
    pub(crate) fn release(&self, cache: &mut KvCache) {
        for &block in self.blocks.iter().filter(|_| self.generates) {
            cache.end_generating(block);
        }
        for &block in self.borrowed.iter().chain(self.blocks.iter().rev()) {
            cache.release(block);
        }
    }
}
