//! A backend that computes only hashes, and the expected answers.
//!
//! It reads each token's whole past through the block table, as attention does. If any block were wrong, stale, evicted
//! too early or copied only in part, the hash would differ from the one taken directly from the query's tokens.

use surprisal_engine::{
    BLOCK_TOKENS, Backend, BackendError, Chunk, FinishReason, ForwardBatch, GeneratedToken, Generation, Hidden, Limits,
    PositionDetails, PositionOptions, Query, ScoreRow, TokenChoice, TokenScore,
};

/// The key of a slot that holds no token.
const NO_TOKEN: u32 = u32::MAX;

/// A backend whose keys are the tokens themselves, and whose hidden states are hashes of all tokens so far.
pub(crate) struct HashBackend {
    pub(crate) limits: Limits,
    keys: Vec<[u32; BLOCK_TOKENS]>,
    hidden: Vec<u64>,
    /// Number of tokens computed, in total.
    pub(crate) computed: usize,
}

impl HashBackend {
    pub(crate) fn new(blocks: usize) -> Self {
        let limits = Limits { vocab_size: 8, max_length: 1000, blocks };
        Self { limits, keys: vec![[NO_TOKEN; BLOCK_TOKENS]; blocks], hidden: vec![0; blocks], computed: 0 }
    }

    fn copy_blocks(&mut self, batch: &ForwardBatch) {
        for copy in &batch.copies {
            let source = self.keys[copy.from as usize];
            let target = &mut self.keys[copy.to as usize];
            *target = [NO_TOKEN; BLOCK_TOKENS];
            target[..copy.tokens].copy_from_slice(&source[..copy.tokens]);
            self.hidden[copy.to as usize] = self.hidden[copy.from as usize];
        }
    }

    /// Stores the keys of a chunk's tokens, then computes their hidden states.
    fn run_chunk(&mut self, chunk: &Chunk, tokens: &[u32], hidden: &mut [u64]) {
        let slot = |position: usize| (chunk.blocks[position / BLOCK_TOKENS] as usize, position % BLOCK_TOKENS);
        for (position, row) in (chunk.start..).zip(chunk.rows.clone()) {
            let (block, at) = slot(position);
            self.keys[block][at] = tokens[row];
        }
        for (position, row) in (chunk.start..).zip(chunk.rows.clone()) {
            let past = (0..=position).map(slot).map(|(block, at)| self.keys[block][at]);
            hidden[row] = hash(past);
        }
    }

    fn score(&self, row: &ScoreRow, hidden: &[u64]) -> TokenScore {
        let past = match row.from {
            Hidden::Row(row) => hidden[row],
            Hidden::Block(block) => self.hidden[block as usize],
        };
        let token = match row.choice {
            TokenChoice::Given(token) => token,
            TokenChoice::Sampled(sample) => sampled(past, sample.uniform),
        };
        let position = (!row.options.is_empty()).then(|| Box::new(position(past, token, &row.options)));
        TokenScore { token, logprob: logprob(past, token), position }
    }
}

impl Backend for HashBackend {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        self.copy_blocks(batch);
        let mut hidden = vec![0; batch.tokens.len()];
        for chunk in &batch.chunks {
            self.run_chunk(chunk, &batch.tokens, &mut hidden);
        }
        self.computed += batch.tokens.len();
        let scores = batch.scores.iter().map(|row| self.score(row, &hidden)).collect();
        for &(row, block) in &batch.store_hidden {
            self.hidden[block as usize] = hidden[row];
        }
        Ok(scores)
    }
}

/// Returns the hidden state after some tokens.
fn hash(tokens: impl IntoIterator<Item = u32>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for token in tokens {
        hash = (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3) ^ (hash >> 29);
    }
    hash
}

/// Returns a "log-probability" that distinguishes any two (past, token) pairs.
fn logprob(hidden: u64, target: u32) -> f32 {
    let mixed = (hidden ^ u64::from(target).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    -((mixed >> 41) as f32) / 1024.0
}

/// Returns the token sampled after a past, which depends on the past and on the noise.
fn sampled(hidden: u64, uniform: f64) -> u32 {
    ((hidden >> 7) % 8) as u32 ^ u32::from(uniform > 0.5)
}

/// Returns the details of a position.
fn position(hidden: u64, target: u32, options: &PositionOptions) -> PositionDetails {
    let top = (0..options.top.into()).map(|id| (id, logprob(hidden, id))).collect();
    let rank = options.rank.then(|| (hidden % 8) as u32 + target);
    PositionDetails { rank, entropy: options.entropy.then(|| logprob(hidden, 100)), top, subset: None }
}

/// Returns the log-probabilities expected for a query.
pub(crate) fn expected(query: &Query) -> Vec<f32> {
    let logprob = |i: usize| logprob(hash(query.tokens[..i].iter().copied()), query.tokens[i]);
    (query.score_from..query.tokens.len()).map(logprob).collect()
}

/// Returns the details expected for each scored position of a query.
pub(crate) fn expected_positions(query: &Query) -> Vec<PositionDetails> {
    if query.options.is_empty() {
        return Vec::new();
    }
    let details = |i: usize| position(hash(query.tokens[..i].iter().copied()), query.tokens[i], &query.options);
    (query.score_from..query.tokens.len()).map(details).collect()
}

/// Returns the tokens expected to be sampled after those of a query.
pub(crate) fn continuation(query: &Query, generation: &Generation) -> Vec<GeneratedToken> {
    let (mut tokens, mut continuation) = (query.tokens.clone(), Vec::new());
    for left in (0..generation.max_tokens).rev() {
        let past = hash(tokens.iter().copied());
        let id = sampled(past, generation.sampling.at(tokens.len()).uniform);
        let finish_reason = if generation.stop.contains(&id) {
            Some(FinishReason::Stop)
        } else {
            (left == 0).then_some(FinishReason::Length)
        };
        let position = position(past, id, &generation.options);
        continuation.push(GeneratedToken { id, logprob: logprob(past, id), position, finish_reason });
        tokens.push(id);
        if finish_reason.is_some() {
            break;
        }
    }
    continuation
}
