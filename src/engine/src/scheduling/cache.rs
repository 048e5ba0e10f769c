//! `KvCache`: which KV block holds what, which queries hold it, and which prefixes can be found again.
//!
//! A published block remembers its tokens, how many of them have keys and values, and their log-probabilities where a
//! query requested them; the backend keeps its last hidden state. So a prefix that was scored once is scored again
//! without computation, and so is the token after it. Blocks are found by the hash of the prefix before them: exactly,
//! or by the longest common beginning, which is then copied into a block that the query alone holds.
//!
//! Invariants: a block is in exactly one place (free, idle = published and unused, or held); a held block has at least
//! one holder; only idle blocks are evicted, least recently used first; a published block's contents never change,
//! except that unknown log-probabilities become known.

use std::collections::{BTreeSet, HashMap};

use crate::backend::{BLOCK_TOKENS, BlockId, TokenScore};
use crate::scheduling::prefix_hash::PrefixHash;

/// Most blocks with the same parent and first token that are compared for a common beginning, newest first.
const MAX_CANDIDATES: usize = 32;

/// The state of one block.
#[derive(Clone, Debug, Default)]
struct Block {
    holders: u32,
    last_used: u64,
    published: Option<PublishedBlock>,
}

/// The contents of a block that others can find.
#[derive(Clone, Debug)]
struct PublishedBlock {
    /// The prefix before the block.
    parent: PrefixHash,
    /// The prefix up to the block's end.
    hash: PrefixHash,
    tokens: Vec<u32>,
    /// Tokens that have keys and values: all, or all but the last of a sequence.
    computed: usize,
    /// One for each token; `None` if no query requested it.
    scores: Vec<Option<KnownScore>>,
}

/// The score of a token given those before it, as far as the cache keeps it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KnownScore {
    pub(crate) logprob: f32,
    /// The most probable token at this position and its log-probability, if a query requested it.
    pub(crate) top1: Option<(u32, f32)>,
}

impl From<&TokenScore> for KnownScore {
    fn from(score: &TokenScore) -> Self {
        let top1 = score.position.as_ref().and_then(|position| position.top.first().copied());
        Self { logprob: score.logprob, top1 }
    }
}

/// The scores of `tokens[from..]` that a query requires.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequiredScores {
    pub(crate) from: usize,
    /// True if it needs [`KnownScore::top1`] beside the log-probability.
    pub(crate) top1: bool,
}

impl RequiredScores {
    /// Returns the same of `tokens[start..]`.
    fn after(self, start: usize) -> Self {
        Self { from: self.from.saturating_sub(start), ..self }
    }

    fn is_met_by(self, score: Option<KnownScore>) -> bool {
        score.is_some_and(|score| !self.top1 || score.top1.is_some())
    }
}

/// The longest prefix of a query in the cache. Its blocks are held and must be released.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CachedPrefix {
    /// Whole blocks, shared.
    pub(crate) blocks: Vec<BlockId>,
    /// A further block that begins with the query's next tokens, and how many of them to copy.
    pub(crate) partial: Option<(BlockId, usize)>,
    /// Tokens with usable keys and values.
    pub(crate) computed: usize,
    /// The block that keeps the hidden state of token `computed - 1`, if one does.
    pub(crate) hidden: Option<BlockId>,
    /// The scores of the tokens from [`RequiredScores::from`] on, as far as they are known.
    pub(crate) scores: Vec<KnownScore>,
    /// The hash up to the end of `blocks`.
    pub(crate) hash: PrefixHash,
}

/// Gauges of the cache, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheUsage {
    pub(crate) total: usize,
    pub(crate) held: usize,
    pub(crate) idle: usize,
    pub(crate) evicted: u64,
}

/// The block pool and its index of prefixes.
#[derive(Clone, Debug)]
pub(crate) struct KvCache {
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    /// By last use.
    idle: BTreeSet<(u64, BlockId)>,
    by_hash: HashMap<PrefixHash, BlockId>,
    /// By parent and first token.
    children: HashMap<(PrefixHash, u32), Vec<BlockId>>,
    clock: u64,
    evicted: u64,
}

impl KvCache {
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            blocks: vec![Block::default(); blocks],
            free: (0..blocks as BlockId).rev().collect(),
            idle: BTreeSet::new(),
            by_hash: HashMap::new(),
            children: HashMap::new(),
            clock: 0,
            evicted: 0,
        }
    }

    pub(crate) fn usage(&self) -> CacheUsage {
        let (total, idle) = (self.blocks.len(), self.idle.len());
        CacheUsage { total, held: total - idle - self.free.len(), idle, evicted: self.evicted }
    }

    /// Finds the longest usable prefix of `tokens` and holds its blocks.
    ///
    /// A token whose required score is unknown ends the prefix.
    pub(crate) fn acquire(&mut self, tokens: &[u32], required: RequiredScores) -> CachedPrefix {
        let mut prefix = CachedPrefix { hash: PrefixHash::ROOT, ..CachedPrefix::default() };
        loop {
            let start = prefix.blocks.len() * BLOCK_TOKENS;
            let Some((block, len)) = self.best_match(prefix.hash, &tokens[start..], required.after(start)) else {
                break;
            };
            let Some(published) = &self.blocks[block as usize].published else { break };
            let (usable, hash) = (len.min(published.computed), published.hash);
            prefix.computed = start + usable;
            if usable > 0 {
                prefix.hidden = (usable == published.computed).then_some(block);
            }
            let scored = required.from.clamp(start, start + len) - start;
            prefix.scores.extend(published.scores[scored..len].iter().flatten());
            self.hold(block);
            if usable < BLOCK_TOKENS {
                prefix.partial = Some((block, usable));
                break;
            }
            prefix.hash = hash;
            prefix.blocks.push(block);
        }
        prefix
    }

    /// Returns the length of the longest prefix of `tokens` that has keys and values in published blocks, whatever else
    /// is known.
    pub(crate) fn cached_kv_len(&self, tokens: &[u32]) -> usize {
        let no_scores = RequiredScores { from: usize::MAX, top1: false };
        let (mut hash, mut len) = (PrefixHash::ROOT, 0);
        while let Some((block, matching)) = self.best_match(hash, &tokens[len..], no_scores) {
            let Some(published) = &self.blocks[block as usize].published else { break };
            let usable = matching.min(published.computed);
            len += usable;
            hash = published.hash;
            if usable < BLOCK_TOKENS {
                break;
            }
        }
        len
    }

    /// Returns the published block after `parent` that answers for most of `tokens`, and for how many.
    fn best_match(&self, parent: PrefixHash, tokens: &[u32], required: RequiredScores) -> Option<(BlockId, usize)> {
        let first = *tokens.first()?;
        let tokens = &tokens[..tokens.len().min(BLOCK_TOKENS)];
        let usable = |block: BlockId| {
            let published = self.blocks[block as usize].published.as_ref()?;
            Some((block, published.usable_len(tokens, required)))
        };
        let exact = self.by_hash.get(&parent.extend(tokens)).and_then(|&block| usable(block));
        if let Some((block, len)) = exact
            && len == tokens.len()
        {
            return Some((block, len));
        }
        let candidates = self.children.get(&(parent, first))?;
        let found = candidates.iter().rev().take(MAX_CANDIDATES).filter_map(|&block| usable(block));
        found.filter(|&(_, len)| len > 0).max_by_key(|&(_, len)| len)
    }

    /// Returns a block for one query alone, if one is free or idle.
    pub(crate) fn allocate(&mut self) -> Option<BlockId> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => self.evict()?,
        };
        self.blocks[block as usize].holders = 1;
        Some(block)
    }

    /// Returns how many blocks [`KvCache::allocate`] could give now.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    fn evict(&mut self) -> Option<BlockId> {
        let (_, block) = self.idle.pop_first()?;
        self.unpublish(block);
        self.evicted += 1;
        Some(block)
    }

    fn hold(&mut self, block: BlockId) {
        let state = &mut self.blocks[block as usize];
        state.holders += 1;
        self.idle.remove(&(state.last_used, block));
    }

    /// Gives a block back; a published one can be found until it is evicted.
    pub(crate) fn release(&mut self, block: BlockId) {
        let state = &mut self.blocks[block as usize];
        debug_assert!(state.holders > 0, "block {block} was released more often than held");
        state.holders -= 1;
        if state.holders > 0 {
            return;
        }
        if state.published.is_some() {
            self.clock += 1;
            state.last_used = self.clock;
            self.idle.insert((self.clock, block));
        } else {
            self.free.push(block);
        }
    }

    /// Gives back the blocks of a prefix, the last first, so that the beginning of a prefix outlives its end.
    pub(crate) fn release_prefix(&mut self, prefix: &CachedPrefix) {
        for &block in prefix.partial.iter().map(|(block, _)| block).chain(prefix.blocks.iter().rev()) {
            self.release(block);
        }
    }

    /// Makes a held block findable: `tokens` after `parent`, the first `computed` with keys and values.
    ///
    /// Returns the hash up to its end and the block to use from now on: another one, held in its place, if the same
    /// tokens were published before.
    pub(crate) fn publish(
        &mut self,
        block: BlockId,
        parent: PrefixHash,
        tokens: &[u32],
        computed: usize,
        scores: Vec<Option<KnownScore>>,
    ) -> (PrefixHash, BlockId) {
        let hash = parent.extend(tokens);
        let mut published = PublishedBlock { parent, hash, tokens: tokens.to_vec(), computed, scores };
        if let Some(&other) = self.by_hash.get(&hash).filter(|&&other| other != block) {
            if let Some(former) = &mut self.blocks[other as usize].published {
                if former.computed >= computed {
                    former.merge_scores(&published.scores);
                    self.hold(other);
                    self.release(block);
                    return (hash, other);
                }
                published.merge_scores(&former.scores);
            }
            self.retire(other);
        }
        self.children.entry((parent, tokens[0])).or_default().push(block);
        self.by_hash.insert(hash, block);
        self.blocks[block as usize].published = Some(published);
        (hash, block)
    }

    /// Unpublishes a block that a better one of the same tokens replaces, and frees it if it is idle.
    fn retire(&mut self, block: BlockId) {
        self.unpublish(block);
        if self.idle.remove(&(self.blocks[block as usize].last_used, block)) {
            self.free.push(block);
        }
    }

    /// Removes a block from the index.
    fn unpublish(&mut self, block: BlockId) {
        let Some(published) = self.blocks[block as usize].published.take() else { return };
        self.by_hash.remove(&published.hash);
        let key = (published.parent, published.tokens[0]);
        if let Some(siblings) = self.children.get_mut(&key) {
            siblings.retain(|&other| other != block);
            if siblings.is_empty() {
                self.children.remove(&key);
            }
        }
    }
}

impl PublishedBlock {
    /// Returns how many of `tokens` the block begins with and has the required scores of.
    fn usable_len(&self, tokens: &[u32], required: RequiredScores) -> usize {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let unknown = |&i: &usize| i >= required.from && !required.is_met_by(self.scores[i]);
        (0..common).find(unknown).unwrap_or(common)
    }

    fn merge_scores(&mut self, new: &[Option<KnownScore>]) {
        for (score, &new) in self.scores.iter_mut().zip(new) {
            match (score.as_mut(), new) {
                (Some(score), Some(new)) => score.top1 = score.top1.or(new.top1),
                _ => *score = score.or(new),
            }
        }
    }
}
