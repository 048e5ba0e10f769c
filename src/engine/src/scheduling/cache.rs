//! `KvCache`: the contents and holders of each KV block, and an index of reusable prefixes. A block's holders are the
//! queries that use it.
//!
//! A published block records its tokens, the number of tokens that have keys and values, and the log-probabilities that
//! queries have requested. The backend stores the hidden state of the block's last token. So a cached prefix, and the
//! token after it, can be scored again without running any token through the model.
//!
//! A lookup takes the hash of the prefix before a block and the query's next tokens. It finds a block with exactly
//! these tokens or, if there is none, the block that shares the longest beginning with them. In the second case, this
//! beginning is copied into a block that only the new query holds.
//!
//! A prefix belongs to a namespace, with which its hash begins, so queries never find prefixes of other namespaces.
//!
//! Invariants: a block is in exactly one state: free, idle (published but not held), or held. A held block has at least
//! one holder. Only idle blocks are evicted, least recently used first. The contents of a published block never change,
//! except that unknown log-probabilities become known.

use std::collections::{BTreeSet, HashMap};

use crate::backend::{BLOCK_TOKENS, BlockId, TokenScore};
use crate::scheduling::prefix_hash::PrefixHash;
use crate::scorer::CacheNamespace;

/// Maximum number of blocks that a lookup compares with a query's tokens, newest first. All of them have the same
/// parent and first token.
const MAX_CANDIDATES: usize = 32;

/// The state of one block.
#[derive(Clone, Debug, Default)]
struct Block {
    holders: u32,
    /// Number of holders that generate.
    generating: u32,
    last_used: u64,
    published: Option<PublishedBlock>,
}

/// The contents of a published block, which other queries can find.
#[derive(Clone, Debug)]
struct PublishedBlock {
    /// The hash of the prefix before the block.
    parent: PrefixHash,
    /// The hash of the prefix up to the block's end.
    hash: PrefixHash,
    tokens: Vec<u32>,
    /// Number of the block's tokens that have keys and values: all, or all except the last token of a sequence.
    computed: usize,
    /// The score of each token; `None` if no query requested it.
    scores: Vec<Option<KnownScore>>,
}

/// The parts of a token's score that the cache keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KnownScore {
    pub(crate) logprob: f32,
    /// The most probable token at this position and its log-probability; `None` if no query requested it.
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
    /// `true` if the query also requires [`KnownScore::top1`].
    pub(crate) top1: bool,
}

impl RequiredScores {
    /// Returns the same requirement relative to `tokens[start..]`.
    fn after(self, start: usize) -> Self {
        Self { from: self.from.saturating_sub(start), ..self }
    }

    fn is_met_by(self, score: Option<KnownScore>) -> bool {
        score.is_some_and(|score| !self.top1 || score.top1.is_some())
    }
}

/// The longest cached prefix of a query. Its blocks are held and must be released.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CachedPrefix {
    /// Whole blocks, shared with other queries.
    pub(crate) blocks: Vec<BlockId>,
    /// A further block that begins with the query's next tokens, and the number of tokens to copy from it.
    pub(crate) partial: Option<(BlockId, usize)>,
    /// Number of tokens with usable keys and values.
    pub(crate) computed: usize,
    /// The block that stores the hidden state of token `computed - 1`; `None` if no block does.
    pub(crate) hidden: Option<BlockId>,
    /// The known scores of the tokens from [`RequiredScores::from`] on.
    pub(crate) scores: Vec<KnownScore>,
    /// The hash of the prefix up to the end of `blocks`.
    pub(crate) hash: PrefixHash,
}

impl CachedPrefix {
    /// Returns the empty prefix of a namespace, which holds no blocks.
    pub(crate) fn empty(namespace: CacheNamespace) -> Self {
        Self {
            blocks: Vec::new(),
            partial: None,
            computed: 0,
            hidden: None,
            scores: Vec::new(),
            hash: PrefixHash::root(namespace),
        }
    }

    /// Returns whether the token after the prefix has yet to be scored, where scores are required from `score_from` on.
    /// Its score needs the hidden state of the prefix's last token.
    pub(crate) fn ends_before_score(&self, score_from: usize) -> bool {
        self.computed > 0 && score_from + self.scores.len() == self.computed
    }

    /// Returns the number of tokens that need not be computed again. It excludes the last token of the prefix if the
    /// token's hidden state is needed but not stored.
    pub(crate) fn reusable_len(&self, score_from: usize) -> usize {
        self.computed - usize::from(self.ends_before_score(score_from) && self.hidden.is_none())
    }
}

/// The cache's usage and evictions, in blocks.
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
    /// Published blocks that no query holds, least recently used first.
    idle: BTreeSet<(u64, BlockId)>,
    by_hash: HashMap<PrefixHash, BlockId>,
    /// Published blocks, by parent and first token.
    children: HashMap<(PrefixHash, u32), Vec<BlockId>>,
    /// Number of blocks that queries that generate hold.
    generating: usize,
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
            generating: 0,
            clock: 0,
            evicted: 0,
        }
    }

    pub(crate) fn usage(&self) -> CacheUsage {
        let (total, idle) = (self.blocks.len(), self.idle.len());
        CacheUsage { total, held: total - idle - self.free.len(), idle, evicted: self.evicted }
    }

    /// Finds the longest usable prefix of `tokens` in a namespace and holds its blocks.
    ///
    /// The prefix ends before the first token whose required score is unknown.
    pub(crate) fn acquire(
        &mut self,
        namespace: CacheNamespace,
        tokens: &[u32],
        required: RequiredScores,
    ) -> CachedPrefix {
        let mut prefix = CachedPrefix::empty(namespace);
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

    /// Returns the length of the longest prefix of `tokens` that has keys and values in a namespace's published blocks,
    /// regardless of which scores are known.
    pub(crate) fn cached_kv_len(&self, namespace: CacheNamespace, tokens: &[u32]) -> usize {
        let no_scores = RequiredScores { from: usize::MAX, top1: false };
        let (mut hash, mut len) = (PrefixHash::root(namespace), 0);
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

    /// Finds the published block with this parent that contains the longest usable beginning of `tokens`; returns the
    /// block and the length of the beginning in tokens.
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

    /// Allocates a block to one query, evicting an idle block if none is free; returns `None` if all blocks are held.
    pub(crate) fn allocate(&mut self) -> Option<BlockId> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => self.evict()?,
        };
        self.blocks[block as usize].holders = 1;
        Some(block)
    }

    /// Returns how many blocks [`KvCache::allocate`] could return now.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Returns the number of blocks that queries that generate hold.
    pub(crate) fn generating(&self) -> usize {
        self.generating
    }

    /// Returns whether a query that generates holds the block.
    pub(crate) fn is_generating(&self, block: BlockId) -> bool {
        self.blocks[block as usize].generating > 0
    }

    /// Counts a query that generates among the holders of a block.
    pub(crate) fn start_generating(&mut self, block: BlockId) {
        let count = &mut self.blocks[block as usize].generating;
        *count += 1;
        self.generating += usize::from(*count == 1);
    }

    /// Ends what [`start_generating`](Self::start_generating) began.
    pub(crate) fn end_generating(&mut self, block: BlockId) {
        let count = &mut self.blocks[block as usize].generating;
        debug_assert!(*count > 0, "no query that generates holds block {block}");
        *count -= 1;
        self.generating -= usize::from(*count == 0);
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

    /// Releases a block. A published block can still be found until it is evicted.
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

    /// Releases the blocks of a prefix, the last one first, so that the end of a prefix is evicted before its
    /// beginning.
    pub(crate) fn release_prefix(&mut self, prefix: &CachedPrefix) {
        for &block in prefix.partial.iter().map(|(block, _)| block).chain(prefix.blocks.iter().rev()) {
            self.release(block);
        }
    }

    /// Publishes a held block that contains `tokens` after the prefix `parent`. The first `computed` of these tokens
    /// have keys and values.
    ///
    /// Returns the hash of the prefix up to the block's end, and the block to use from now on. If an earlier block with
    /// the same tokens has at least as many keys and values, the cache holds and returns the earlier block, and
    /// releases the new one.
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

    /// Unpublishes a block that is replaced by one with more keys and values, and frees it if it is idle.
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
    /// Returns the length of the beginning that the block shares with `tokens`, up to the first token whose required
    /// score is unknown.
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
