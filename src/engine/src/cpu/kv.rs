//! The memory of the paged KV cache: keys, values, and one hidden state per block.

use std::hint::black_box;

use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, PanelRow};
use crate::backend::{BLOCK_TOKENS, BlockCopy, BlockId};

// A block of keys is one packed panel of the product q * K^T, and a block of values is one packed panel of p * V.
const _: () = assert!(BLOCK_TOKENS == PANEL_WIDTH);

/// Returns whether `bytes` bytes can be allocated at once. A system that overcommits memory rejects only a size that it
/// could never provide. The memory is not touched, so it is not committed.
pub(crate) fn can_allocate(bytes: usize) -> bool {
    let mut memory = Vec::<u8>::new();
    let is_allocated = memory.try_reserve_exact(bytes).is_ok();
    // Keeps the compiler from removing the unused allocation.
    black_box(&memory);
    is_allocated
}

/// Keys and values of one layer, block by block, head by head.
#[derive(Clone, Debug)]
pub(crate) struct LayerKv {
    /// `[block][kv head][head dim, padded][32 tokens]`
    keys: Vec<PanelRow>,
    /// `[block][kv head][head panel][32 tokens][32 columns]`
    values: Vec<PanelRow>,
    kv_heads: usize,
    head_rows: usize,
}

impl LayerKv {
    pub(crate) fn new(blocks: usize, kv_heads: usize, head_panels: usize) -> Self {
        let head_rows = head_panels * PANEL_WIDTH;
        let rows = blocks * kv_heads * head_rows;
        Self { keys: vec![[0.0; PANEL_WIDTH]; rows], values: vec![[0.0; PANEL_WIDTH]; rows], kv_heads, head_rows }
    }

    fn at(&self, block: BlockId, kv_head: usize) -> usize {
        (block as usize * self.kv_heads + kv_head) * self.head_rows
    }

    /// Returns one head's keys in a block, ready to multiply: `[head dim][32 tokens]`.
    pub(crate) fn keys(&self, block: BlockId, kv_head: usize) -> &[PanelRow] {
        &self.keys[self.at(block, kv_head)..][..self.head_rows]
    }

    /// Returns one head's values in a block, ready to multiply: for each panel of the head, `[32 tokens][32 columns]`.
    pub(crate) fn values(&self, block: BlockId, kv_head: usize, panel: usize) -> &[PanelRow] {
        &self.values[self.at(block, kv_head) + panel * PANEL_WIDTH..][..PANEL_WIDTH]
    }

    /// Borrows the blocks with the given ids, which must be strictly increasing, so that threads can write in parallel.
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
            for panel in (0..self.head_rows).step_by(PANEL_WIDTH) {
                let source = from + panel..from + panel + copy.tokens;
                self.values.copy_within(source, to + panel);
            }
        }
    }
}

/// One block's keys and values, in the layout of [`LayerKv`].
pub(crate) struct BlockMut<'a> {
    keys: &'a mut [PanelRow],
    values: &'a mut [PanelRow],
    head_rows: usize,
}

impl BlockMut<'_> {
    /// Writes one token's key and value for one head; each is given in panels.
    #[inline(always)]
    pub(crate) fn write_token(&mut self, slot: usize, kv_head: usize, key: &[PanelRow], value: &[PanelRow]) {
        let at = kv_head * self.head_rows;
        for (row, &x) in self.keys[at..].iter_mut().zip(key.as_flattened()) {
            row[slot] = x;
        }
        for (panel, row) in value.iter().enumerate() {
            self.values[at + panel * PANEL_WIDTH + slot] = *row;
        }
    }
}

/// The hidden state (after the last norm) of each block's last token, which predicts the token after the block.
#[derive(Clone, Debug)]
pub(crate) struct HiddenStore {
    panels: usize,
    rows: Vec<PanelRow>,
}

impl HiddenStore {
    pub(crate) fn new(blocks: usize, panels: usize) -> Self {
        Self { panels, rows: vec![[0.0; PANEL_WIDTH]; blocks * panels] }
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    pub(crate) fn put(&mut self, block: BlockId, hidden: &PanelMatrix, row: usize) {
        for panel in 0..self.panels {
            self.rows[block as usize * self.panels + panel] = *hidden.row(panel, row);
        }
    }

    pub(crate) fn copy(&mut self, copy: &BlockCopy) {
        let from = copy.from as usize * self.panels;
        self.rows.copy_within(from..from + self.panels, copy.to as usize * self.panels);
    }

    pub(crate) fn get(&self, block: BlockId, panel: usize) -> &PanelRow {
        &self.rows[block as usize * self.panels + panel]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_no_machine_has_cannot_be_allocated() {
        assert!(can_allocate(0) && can_allocate(1 << 20));
        assert!(!can_allocate(1 << 60) && !can_allocate(usize::MAX));
    }
}
