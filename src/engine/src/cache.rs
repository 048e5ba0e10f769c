//! `KvCache`: which KV block holds what, who uses it, and which prefixes can be found again.
//!
//! A published block remembers its tokens, how many of them have keys and values, and the log-probabilities that were
//! asked for; the backend keeps its last hidden state. So a prefix that was scored once is scored again for free, and the
//! token after it needs no recomputation either. Blocks are found by the hash of the prefix before them: exactly, or by
//! the longest common beginning, which is then copied into a block of the sequence's own.
//!
//! Invariants: a block is in exactly one place (free, idle = published and unused, or held); a held block has at least
//! one holder; only idle blocks are evicted, least recently used first; a published block's contents never change, except
//! that unknown log-probabilities become known.

use std::collections::{BTreeSet, HashMap};

use crate::backend::{BLOCK_TOKENS, BlockId};
use crate::chain::Chain;

/// How many blocks with the same parent and first token are compared for a common beginning, newest first.
const CANDIDATES: usize = 32;

/// What is known of one block.
#[derive(Clone, Debug, Default)]
struct Block {
    holders: u32,
    last_used: u64,
    entry: Option<Entry>,
}

/// A published block.
#[derive(Clone, Debug)]
struct Entry {
    parent: Chain,
    chain: Chain,
    tokens: Vec<u32>,
    /// Tokens that have keys and values: all, or all but the last of a sequence.
    computed: usize,
    /// One a token; `None` where it was never asked for.
    logprobs: Vec<Option<f32>>,
}

/// How much of a sequence is in the cache. The blocks named here are held and must be released.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Prefix {
    /// Whole blocks, shared.
    pub(crate) blocks: Vec<BlockId>,
    /// A further block that begins with the sequence's next tokens, and how many of them are to be copied.
    pub(crate) partial: Option<(BlockId, usize)>,
    /// Tokens with usable keys and values.
    pub(crate) computed: usize,
    /// The block that keeps the hidden state of token `computed - 1`, if one does.
    pub(crate) hidden: Option<BlockId>,
    /// Log-probabilities of `tokens[score_from..]`, as far as they are known.
    pub(crate) logprobs: Vec<f32>,
    /// The chain up to the end of `blocks`.
    pub(crate) chain: Chain,
}

/// Gauges of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheUse {
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
    idle: BTreeSet<(u64, BlockId)>,
    exact: HashMap<Chain, BlockId>,
    children: HashMap<(Chain, u32), Vec<BlockId>>,
    clock: u64,
    evicted: u64,
}

impl KvCache {
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            blocks: vec![Block::default(); blocks],
            free: (0..blocks as BlockId).rev().collect(),
            idle: BTreeSet::new(),
            exact: HashMap::new(),
            children: HashMap::new(),
            clock: 0,
            evicted: 0,
        }
    }

    pub(crate) fn usage(&self) -> CacheUse {
        let (total, idle) = (self.blocks.len(), self.idle.len());
        CacheUse { total, held: total - idle - self.free.len(), idle, evicted: self.evicted }
    }

    /// The longest usable beginning of `tokens`, of which `tokens[score_from..]` must be scored; its blocks are held.
    ///
    /// A token that must be scored ends the prefix if its log-probability is unknown.
    pub(crate) fn acquire(&mut self, tokens: &[u32], score_from: usize) -> Prefix {
        let mut prefix = Prefix { chain: Chain::ROOT, ..Prefix::default() };
        loop {
            let at = prefix.blocks.len() * BLOCK_TOKENS;
            let Some((block, known)) = self.best_child(prefix.chain, &tokens[at..], score_from.saturating_sub(at))
            else {
                break;
            };
            let Some(entry) = &self.blocks[block as usize].entry else { break };
            let (usable, chain) = (known.min(entry.computed), entry.chain);
            prefix.computed = at + usable;
            prefix.hidden = match usable {
                0 => prefix.hidden,
                _ => (usable == entry.computed).then_some(block),
            };
            let scored = score_from.clamp(at, at + known) - at;
            prefix.logprobs.extend(entry.logprobs[scored..known].iter().flatten());
            self.hold(block);
            if usable < BLOCK_TOKENS {
                prefix.partial = Some((block, usable));
                break;
            }
            prefix.chain = chain;
            prefix.blocks.push(block);
        }
        prefix
    }

    /// How many tokens from the beginning of `tokens` have keys and values in published blocks, whatever else is known of them.
    pub(crate) fn held(&self, tokens: &[u32]) -> usize {
        let (mut chain, mut held) = (Chain::ROOT, 0);
        while let Some((block, same)) = self.best_child(chain, &tokens[held..], usize::MAX) {
            let Some(entry) = &self.blocks[block as usize].entry else { break };
            held += same.min(entry.computed);
            chain = entry.chain;
            if same.min(entry.computed) < BLOCK_TOKENS {
                break;
            }
        }
        held
    }

    /// The published block after `parent` that serves most of `tokens`, and how many tokens that is.
    fn best_child(&self, parent: Chain, tokens: &[u32], score_from: usize) -> Option<(BlockId, usize)> {
        let first = *tokens.first()?;
        let wanted = &tokens[..tokens.len().min(BLOCK_TOKENS)];
        let serves =
            |block: BlockId| Some((block, self.blocks[block as usize].entry.as_ref()?.serves(wanted, score_from)));
        let exact = self.exact.get(&parent.then(wanted)).and_then(|&block| serves(block));
        if let Some(found) = exact.filter(|found| found.1 == wanted.len()) {
            return Some(found);
        }
        let candidates = self.children.get(&(parent, first))?;
        let served = candidates.iter().rev().take(CANDIDATES).filter_map(|&block| serves(block));
        served.filter(|found| found.1 > 0).max_by_key(|found| found.1)
    }

    /// A block of one's own, if one is free or idle.
    pub(crate) fn allocate(&mut self) -> Option<BlockId> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => self.evict()?,
        };
        self.blocks[block as usize].holders = 1;
        Some(block)
    }

    /// How many blocks [`KvCache::allocate`] could give now.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    fn evict(&mut self) -> Option<BlockId> {
        let (_, block) = self.idle.pop_first()?;
        self.forget(block);
        self.evicted += 1;
        Some(block)
    }

    /// Takes out a block that a better one of the same tokens replaces.
    fn replace(&mut self, block: BlockId) {
        self.forget(block);
        if self.idle.remove(&(self.blocks[block as usize].last_used, block)) {
            self.free.push(block);
        }
    }

    /// Takes a block out of the index.
    fn forget(&mut self, block: BlockId) {
        let Some(entry) = self.blocks[block as usize].entry.take() else { return };
        self.exact.remove(&entry.chain);
        let key = (entry.parent, entry.tokens[0]);
        if let Some(siblings) = self.children.get_mut(&key) {
            siblings.retain(|&other| other != block);
            if siblings.is_empty() {
                self.children.remove(&key);
            }
        }
    }

    fn hold(&mut self, block: BlockId) {
        let meta = &mut self.blocks[block as usize];
        meta.holders += 1;
        self.idle.remove(&(meta.last_used, block));
    }

    /// Gives a block back; a published one can be found until it is evicted.
    pub(crate) fn release(&mut self, block: BlockId) {
        let meta = &mut self.blocks[block as usize];
        debug_assert!(meta.holders > 0, "block {block} was released more often than held");
        meta.holders -= 1;
        if meta.holders > 0 {
            return;
        }
        if meta.entry.is_some() {
            self.clock += 1;
            meta.last_used = self.clock;
            self.idle.insert((self.clock, block));
        } else {
            self.free.push(block);
        }
    }

    /// Makes a held block findable: `tokens` after `parent`, the first `computed` with keys and values.
    ///
    /// Returns the chain to its end and the block to use from now on: another one, held in its place, if the same tokens
    /// were published before.
    pub(crate) fn publish(
        &mut self,
        block: BlockId,
        parent: Chain,
        tokens: &[u32],
        computed: usize,
        logprobs: Vec<Option<f32>>,
    ) -> (Chain, BlockId) {
        let chain = parent.then(tokens);
        let mut entry = Entry { parent, chain, tokens: tokens.to_vec(), computed, logprobs };
        if let Some(&known) = self.exact.get(&chain).filter(|&&known| known != block) {
            if let Some(former) = &mut self.blocks[known as usize].entry {
                if former.computed >= computed {
                    former.learn(&entry.logprobs);
                    self.hold(known);
                    self.release(block);
                    return (chain, known);
                }
                entry.learn(&former.logprobs);
            }
            self.replace(known);
        }
        self.children.entry((parent, tokens[0])).or_default().push(block);
        self.exact.insert(chain, block);
        self.blocks[block as usize].entry = Some(entry);
        (chain, block)
    }
}

impl Entry {
    /// How many of the wanted tokens this block begins with and can answer for.
    fn serves(&self, wanted: &[u32], score_from: usize) -> usize {
        let common = self.tokens.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        let unknown = |i: &usize| *i >= score_from && self.logprobs[*i].is_none();
        (0..common).find(unknown).unwrap_or(common)
    }

    fn learn(&mut self, logprobs: &[Option<f32>]) {
        for (known, &new) in self.logprobs.iter_mut().zip(logprobs) {
            *known = known.or(new);
        }
    }
}
