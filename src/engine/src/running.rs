//! A running query: its blocks, what is known of it, its next chunk, and what of it others may find.

use crate::backend::{BLOCK_TOKENS, BlockCopy, BlockId, Choice, Chunk, ForwardBatch, Hidden, ScoreRow, TokenScore};
use crate::cache::{Known, KvCache, Prefix, Wanted};
use crate::chain::Chain;
use crate::scheduler::QueryId;
use crate::scorer::{Event, Extras, Finish, Generation, Position, Query, Scores, Token};

/// A query that holds its blocks.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: QueryId,
    /// What was asked; tokens that are drawn are added to it.
    pub(crate) query: Query,
    /// How tokens are drawn, while there are more to draw.
    generation: Option<Generation>,
    /// Tokens that were drawn.
    drawn: usize,
    /// The most tokens it can come to.
    longest: usize,
    /// True after a forward pass with others failed: the next one is its own.
    pub(crate) alone: bool,
    /// Block table for all tokens, those to be drawn among them, but the last.
    pub(crate) blocks: Vec<BlockId>,
    /// Tokens found in the cache.
    pub(crate) cached: usize,
    /// Tokens that the cache has keys and values of, used or not.
    held: usize,
    /// Tokens with keys and values, those found and those computed.
    pub(crate) computed: usize,
    /// What is known of `tokens[score_from..]`.
    known: Vec<Known>,
    /// All that was asked of the same tokens, beside their log-probabilities.
    positions: Vec<Position>,
    /// A block that the first chunk reads, held until it is done.
    pub(crate) borrowed: Option<BlockId>,
    /// For the first chunk: what to copy, and the block whose hidden state predicts the first token.
    copy: Option<BlockCopy>,
    hidden: Option<BlockId>,
    /// Blocks that can be found by others, and the chain to their end.
    published: usize,
    chain: Chain,
}

/// A query, and how it goes on.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: QueryId,
    pub(crate) query: Query,
    pub(crate) generation: Option<Generation>,
}

impl Job {
    /// The most tokens it can come to.
    pub(crate) fn longest(&self) -> usize {
        self.query.tokens.len().saturating_add(self.generation.as_ref().map_or(0, |generation| generation.max_tokens))
    }

    /// Tokens whose work may be found in the cache: of extras it knows the most probable token alone.
    pub(crate) fn reusable(&self) -> &[u32] {
        let Query { tokens, score_from, extras, .. } = &self.query;
        if extras.is_empty() || self.asks_best() { tokens } else { &tokens[..*score_from] }
    }

    /// What must be known of them.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { from: self.query.score_from, best: self.asks_best() }
    }

    fn asks_best(&self) -> bool {
        self.query.extras == Extras { top: 1, ..Extras::default() }
    }

    /// The positions of tokens that were found in the cache.
    pub(crate) fn positions(&self, known: &[Known]) -> Vec<Position> {
        let best = known.iter().filter(|_| self.asks_best()).map(|known| known.best);
        best.map(|best| Position { top: best.into_iter().collect(), ..Position::default() }).collect()
    }
}

impl From<&TokenScore> for Known {
    fn from(score: &TokenScore) -> Self {
        Self {
            logprob: score.logprob,
            best: score.position.as_ref().and_then(|position| position.top.first().copied()),
        }
    }
}

/// What one forward pass does for a running query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: QueryId,
    pub(crate) rows: usize,
    pub(crate) scores: usize,
    /// Whether the last score is of a token that is drawn.
    pub(crate) draws: bool,
}

impl Running {
    /// A query with its blocks. It starts where the prefix ends, or one token earlier if that token's hidden state is
    /// needed and not kept.
    pub(crate) fn new(job: Job, prefix: Prefix, blocks: Vec<BlockId>, held: usize) -> Self {
        let (positions, longest) = (job.positions(&prefix.known), job.longest());
        let Job { id, query, generation } = job;
        let needs_hidden = prefix.computed > 0 && query.score_from + prefix.known.len() == prefix.computed;
        let hidden = prefix.hidden.filter(|_| needs_hidden);
        let computed = prefix.computed - usize::from(needs_hidden && hidden.is_none());
        let own = prefix.blocks.len();
        let partial = prefix.partial.filter(|&(_, tokens)| tokens > 0 && own < blocks.len());
        Self {
            id,
            query,
            generation,
            drawn: 0,
            longest,
            alone: false,
            positions,
            cached: computed,
            held,
            computed,
            published: own,
            chain: prefix.chain,
            known: prefix.known,
            copy: partial.map(|(from, tokens)| BlockCopy { from, to: blocks[own], tokens }),
            hidden,
            borrowed: prefix.partial.map(|(block, _)| block),
            blocks,
        }
    }

    /// Tokens that run through the model, as far as is known: every one but the last, unless one is to be drawn after it.
    pub(crate) fn target(&self) -> usize {
        self.query.tokens.len() - usize::from(self.generation.is_none())
    }

    /// Tokens that might still have been drawn, or might have been had it not ended.
    pub(crate) fn undrawn(&self) -> usize {
        self.longest - self.query.tokens.len()
    }

    /// True when everything is known.
    pub(crate) fn is_done(&self) -> bool {
        self.generation.is_none() && self.computed == self.target()
    }

    /// True while one token a pass is all there is to compute.
    pub(crate) fn is_drawing(&self) -> bool {
        self.drawn > 0
    }

    /// Tokens that others can find in the cache.
    pub(crate) fn published(&self) -> usize {
        self.published * BLOCK_TOKENS
    }

    /// Tokens that others can find soon: a block that is not full is published only when there is nothing more to draw.
    pub(crate) fn promised(&self) -> usize {
        match self.generation {
            Some(_) => self.target() / BLOCK_TOKENS * BLOCK_TOKENS,
            None => self.target(),
        }
    }

    /// Index of the first scored token whose log-probability is unknown.
    pub(crate) fn next_score(&self) -> usize {
        self.query.score_from + self.known.len()
    }

    /// What is known of `tokens[from..to]`.
    fn known(&self, from: usize, to: usize) -> Vec<Option<Known>> {
        let known = |i: usize| i.checked_sub(self.query.score_from).and_then(|i| self.known.get(i).copied());
        (from..to).map(known).collect()
    }

    /// Adds the next tokens to a batch, as many as the budget leaves; nothing if it leaves none.
    pub(crate) fn add_chunk(&self, batch: &mut ForwardBatch, budget: usize) -> Option<Part> {
        let base = batch.tokens.len();
        let rows = (self.target() - self.computed).min(budget.saturating_sub(base));
        let end = self.computed + rows;
        let before = batch.scores.len();
        self.add_scores(batch, base, end);
        let draws = self.add_draw(batch, base, end);
        let scores = batch.scores.len() - before;
        if rows + scores == 0 {
            return None;
        }
        for position in self.computed..end {
            if (position + 1) % BLOCK_TOKENS == 0 || position + 1 == self.target() {
                batch.keep.push((base + position - self.computed, self.blocks[position / BLOCK_TOKENS]));
            }
        }
        batch.copies.extend(self.copy);
        if rows > 0 {
            batch.tokens.extend_from_slice(&self.query.tokens[self.computed..end]);
            let blocks = self.blocks[..end.div_ceil(BLOCK_TOKENS)].to_vec();
            batch.chunks.push(Chunk { rows: base..base + rows, start: self.computed, blocks });
        }
        Some(Part { id: self.id, rows, scores, draws })
    }

    /// Where the hidden state that predicts token `i` is, if it is known once the batch has run.
    fn hidden(&self, base: usize, i: usize) -> Option<Hidden> {
        match (i - 1).checked_sub(self.computed) {
            Some(row) => Some(Hidden::Row(base + row)),
            None => self.hidden.map(Hidden::Block),
        }
    }

    /// Adds the scores that the tokens before `end` predict.
    fn add_scores(&self, batch: &mut ForwardBatch, base: usize, end: usize) {
        for i in self.next_score()..self.query.tokens.len().min(end + 1) {
            let Some(from) = self.hidden(base, i) else { return };
            let choice = Choice::Given(self.query.tokens[i]);
            batch.scores.push(ScoreRow { from, choice, extras: self.query.extras.clone() });
        }
    }

    /// Adds the next token to draw, if the one before it is computed by then; returns whether it did.
    fn add_draw(&self, batch: &mut ForwardBatch, base: usize, end: usize) -> bool {
        let Some(generation) = self.generation.as_ref().filter(|_| end == self.target()) else { return false };
        let Some(from) = self.hidden(base, end) else { return false };
        let choice = Choice::Drawn(generation.sampling.at(end));
        batch.scores.push(ScoreRow { from, choice, extras: generation.extras.clone() });
        true
    }

    /// Notes what a forward pass computed, gives back what it borrowed, and publishes what is finished.
    pub(crate) fn advance(&mut self, part: &Part, mut scores: Vec<TokenScore>, cache: &mut KvCache) -> Vec<Event> {
        let token = if part.draws { scores.pop() } else { None };
        self.known.extend(scores.iter().map(Known::from));
        self.positions.extend(scores.into_iter().filter_map(|score| Some(*score.position?)));
        self.computed += part.rows;
        self.alone = false;
        self.copy = None;
        self.hidden = None;
        if let Some(block) = self.borrowed.take() {
            cache.release(block);
        }
        let mut events = Vec::new();
        if self.drawn == 0 && self.computed == self.target() {
            events.push(Event::Scores(Scores {
                logprobs: self.known.iter().map(|known| known.logprob).collect(),
                positions: std::mem::take(&mut self.positions),
                cached_tokens: self.cached,
                computed_tokens: self.target() - self.cached,
                recomputed_tokens: self.held.min(self.target()).saturating_sub(self.cached),
            }));
        }
        events.extend(token.map(|token| Event::Token(self.draw(token))));
        self.publish(cache);
        events
    }

    /// Adds a token that was drawn.
    fn draw(&mut self, score: TokenScore) -> Token {
        self.known.push(Known::from(&score));
        let TokenScore { token: id, logprob, position } = score;
        self.query.tokens.push(id);
        self.drawn += 1;
        let finish = match &self.generation {
            Some(generation) if generation.stop.contains(&id) => Some(Finish::Stop),
            Some(generation) if self.drawn < generation.max_tokens => None,
            _ => Some(Finish::Length),
        };
        if finish.is_some() {
            self.generation = None;
        }
        Token { id, logprob, position: position.map(|position| *position).unwrap_or_default(), finish }
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
            let known = self.known(from, to);
            let block = self.blocks[self.published];
            let (chain, kept) = cache.publish(block, self.chain, &self.query.tokens[from..to], computed, known);
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
