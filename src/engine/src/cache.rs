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
    known: Vec<Option<Known>>,
}

/// What is known of a token after those before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Known {
    /// Its log-probability.
    pub(crate) logprob: f32,
    /// The most probable token of its place and that one's log-probability, if it was asked for.
    pub(crate) best: Option<(u32, f32)>,
}

/// What is asked of `tokens[from..]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) from: usize,
    /// [`Known::best`] beside the log-probability.
    pub(crate) best: bool,
}

impl Wanted {
    /// The same, of `tokens[at..]`.
    fn after(self, at: usize) -> Self {
        Self { from: self.from.saturating_sub(at), ..self }
    }

    fn is_met(self, known: Option<Known>) -> bool {
        known.is_some_and(|known| !self.best || known.best.is_some())
    }
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
    /// What is asked of `tokens[wanted.from..]`, as far as it is known.
    pub(crate) known: Vec<Known>,
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

    /// The longest usable beginning of `tokens`, of which `wanted` must be known; its blocks are held.
    ///
    /// A token of which that is unknown ends the prefix.
    pub(crate) fn acquire(&mut self, tokens: &[u32], wanted: Wanted) -> Prefix {
        let mut prefix = Prefix { chain: Chain::ROOT, ..Prefix::default() };
        loop {
            let at = prefix.blocks.len() * BLOCK_TOKENS;
            let Some((block, known)) = self.best_child(prefix.chain, &tokens[at..], wanted.after(at)) else {
                break;
            };
            let Some(entry) = &self.blocks[block as usize].entry else { break };
            let (usable, chain) = (known.min(entry.computed), entry.chain);
            prefix.computed = at + usable;
            prefix.hidden = match usable {
                0 => prefix.hidden,
                _ => (usable == entry.computed).then_some(block),
            };
            let scored = wanted.from.clamp(at, at + known) - at;
            prefix.known.extend(entry.known[scored..known].iter().flatten());
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
        while let Some((block, same)) =
            self.best_child(chain, &tokens[held..], Wanted { from: usize::MAX, best: false })
        {
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
    fn best_child(&self, parent: Chain, tokens: &[u32], wanted: Wanted) -> Option<(BlockId, usize)> {
        let first = *tokens.first()?;
        let own = &tokens[..tokens.len().min(BLOCK_TOKENS)];
        let serves = |block: BlockId| Some((block, self.blocks[block as usize].entry.as_ref()?.serves(own, wanted)));
        let exact = self.exact.get(&parent.then(own)).and_then(|&block| serves(block));
        if let Some(found) = exact.filter(|found| found.1 == own.len()) {
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
        known: Vec<Option<Known>>,
    ) -> (Chain, BlockId) {
        let chain = parent.then(tokens);
        let mut entry = Entry { parent, chain, tokens: tokens.to_vec(), computed, known };
        if let Some(&other) = self.exact.get(&chain).filter(|&&other| other != block) {
            if let Some(former) = &mut self.blocks[other as usize].entry {
                if former.computed >= computed {
                    former.learn(&entry.known);
                    self.hold(other);
                    self.release(block);
                    return (chain, other);
                }
                entry.learn(&former.known);
            }
            self.replace(other);
        }
        self.children.entry((parent, tokens[0])).or_default().push(block);
        self.exact.insert(chain, block);
        self.blocks[block as usize].entry = Some(entry);
        (chain, block)
    }
}

impl Entry {
    /// How many of the wanted tokens this block begins with and can answer for.
    fn serves(&self, tokens: &[u32], wanted: Wanted) -> usize {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let unknown = |i: &usize| *i >= wanted.from && !wanted.is_met(self.known[*i]);
        (0..common).find(unknown).unwrap_or(common)
    }

    fn learn(&mut self, known: &[Option<Known>]) {
        for (known, &new) in self.known.iter_mut().zip(known) {
            match (known.as_mut(), new) {
                (Some(known), Some(new)) => known.best = known.best.or(new.best),
                _ => *known = known.or(new),
            }
        }
    }
}
