//! The paged KV cache's memory: keys, values, and one hidden state a block.

use std::hint::black_box;

use super::panels::{PANEL, Panels, Row};
use crate::backend::{BLOCK_TOKENS, BlockCopy, BlockId};

// A block of keys is a packed panel of the product q * K^T, and a block of values one of p * V.
const _: () = assert!(BLOCK_TOKENS == PANEL);

/// Whether so many bytes can be allocated. They are asked for in one piece, because a system that promises more than it has
/// refuses only a piece that it could never give; none of it is touched, so that zeroed memory stays a promise until it is used.
pub(crate) fn is_to_be_had(bytes: usize) -> bool {
    let mut piece = Vec::<u8>::new();
    let is_had = piece.try_reserve_exact(bytes).is_ok();
    // The compiler leaves out an allocation that nobody sees.
    black_box(&piece);
    is_had
}

/// Keys and values of one layer, block by block, head by head.
#[derive(Clone, Debug)]
pub(crate) struct LayerKv {
    /// `[block][kv head][head dim, padded][32 tokens]`
    keys: Vec<Row>,
    /// `[block][kv head][head panel][32 tokens][32 columns]`
    values: Vec<Row>,
    kv_heads: usize,
    head_rows: usize,
}

impl LayerKv {
    pub(crate) fn new(blocks: usize, kv_heads: usize, head_panels: usize) -> Self {
        let head_rows = head_panels * PANEL;
        let rows = blocks * kv_heads * head_rows;
        Self { keys: vec![[0.0; PANEL]; rows], values: vec![[0.0; PANEL]; rows], kv_heads, head_rows }
    }

    fn at(&self, block: BlockId, kv_head: usize) -> usize {
        (block as usize * self.kv_heads + kv_head) * self.head_rows
    }

    /// One head's keys in a block, ready to multiply: `[head dim][32 tokens]`.
    pub(crate) fn keys(&self, block: BlockId, kv_head: usize) -> &[Row] {
        &self.keys[self.at(block, kv_head)..][..self.head_rows]
    }

    /// One head's values in a block, ready to multiply: for each panel of the head, `[32 tokens][32 columns]`.
    pub(crate) fn values(&self, block: BlockId, kv_head: usize, panel: usize) -> &[Row] {
        &self.values[self.at(block, kv_head) + panel * PANEL..][..PANEL]
    }

    /// Some blocks to be written apart from each other, by ascending ids.
    pub(crate) fn blocks_mut(&mut self, ids: &[BlockId]) -> Vec<BlockMut<'_>> {
        let (rows, head_rows) = (self.kv_heads * self.head_rows, self.head_rows);
        let mut wanted = ids.iter().copied().peekable();
        let blocks = self.keys.chunks_exact_mut(rows).zip(self.values.chunks_exact_mut(rows)).enumerate();
        let chosen = blocks.filter(|&(id, _)| wanted.next_if_eq(&(id as BlockId)).is_some());
        chosen.map(|(_, (keys, values))| BlockMut { keys, values, head_rows }).collect()
    }

    pub(crate) fn copy(&mut self, copy: &BlockCopy) {
        for kv_head in 0..self.kv_heads {
            let (from, to) = (self.at(copy.from, kv_head), self.at(copy.to, kv_head));
            for i in 0..self.head_rows {
                let source = self.keys[from + i];
                self.keys[to + i][..copy.tokens].copy_from_slice(&source[..copy.tokens]);
            }
            for panel in (0..self.head_rows).step_by(PANEL) {
                let source = from + panel..from + panel + copy.tokens;
                self.values.copy_within(source, to + panel);
            }
        }
    }
}

/// One block's keys and values, as [`LayerKv`] lays them out.
pub(crate) struct BlockMut<'a> {
    keys: &'a mut [Row],
    values: &'a mut [Row],
    head_rows: usize,
}

impl BlockMut<'_> {
    /// Writes one token's key and value of one head, given in panels.
    #[inline(always)]
    pub(crate) fn write(&mut self, slot: usize, kv_head: usize, key: &[Row], value: &[Row]) {
        let at = kv_head * self.head_rows;
        for (row, &x) in self.keys[at..].iter_mut().zip(key.as_flattened()) {
            row[slot] = x;
        }
        for (panel, row) in value.iter().enumerate() {
            self.values[at + panel * PANEL + slot] = *row;
        }
    }
}

/// The hidden state (after the last norm) of each block's last token: what predicts the block's successor.
#[derive(Clone, Debug)]
pub(crate) struct HiddenStore {
    panels: usize,
    rows: Vec<Row>,
}

impl HiddenStore {
    pub(crate) fn new(blocks: usize, panels: usize) -> Self {
        Self { panels, rows: vec![[0.0; PANEL]; blocks * panels] }
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    pub(crate) fn put(&mut self, block: BlockId, hidden: &Panels, row: usize) {
        for panel in 0..self.panels {
            self.rows[block as usize * self.panels + panel] = *hidden.row(panel, row);
        }
    }

    pub(crate) fn copy(&mut self, copy: &BlockCopy) {
        let from = copy.from as usize * self.panels;
        self.rows.copy_within(from..from + self.panels, copy.to as usize * self.panels);
    }

    pub(crate) fn get(&self, block: BlockId, panel: usize) -> &Row {
        &self.rows[block as usize * self.panels + panel]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_no_machine_has_is_not_to_be_had() {
        assert!(is_to_be_had(0) && is_to_be_had(1 << 20));
        assert!(!is_to_be_had(1 << 60) && !is_to_be_had(usize::MAX));
    }
}
