//! Launches of the attention kernels on a case.

use half::bf16;
use surprisal_kernels::Address;
use surprisal_kernels::attention::{
    PagedAttention, PagedDecode, PagedKv, decode_splits, decode_workspace, query_tiles,
};
use surprisal_kernels::cpu::Order;

use crate::case::{Case, Chunk, Pages};
use crate::support::{Buffer, run, tensor_map};

/// The prefill kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    Mma,
    Wgmma,
    Tma,
}

impl Case {
    fn cache(&self, pages: &Pages, contexts: &Buffer<u32>) -> PagedKv {
        let scales = |scales: &Buffer<f32>| if self.fp8 { scales.address() } else { Address::NULL };
        PagedKv {
            keys: pages.keys.bytes.address(),
            values: pages.values.bytes.address(),
            key_scales: scales(&pages.keys.scales),
            value_scales: scales(&pages.values.scales),
            table: pages.table.address(),
            contexts: contexts.address(),
            table_width: pages.table_width as u32,
            block_size: self.block as u32,
            kv_heads: self.kv_heads as u32,
        }
    }

    /// Returns each chunk's output: `[positions][heads][head_size]`.
    pub(crate) fn prefill(&self, chunks: &[Chunk], order: Order) -> Vec<Vec<bf16>> {
        self.prefill_by(Kernel::Mma, chunks, order)
    }

    pub(crate) fn prefill_by(&self, kernel: Kernel, chunks: &[Chunk], order: Order) -> Vec<Vec<bf16>> {
        let pages = self.pages(chunks);
        let q = Buffer::of(&self.queries(chunks));
        let mut out = Buffer::full(q.values().len(), bf16::NAN);
        let lengths: Vec<(u32, u32)> = chunks.iter().map(|c| (c.1.end as u32, c.1.len() as u32)).collect();
        let mut starts = vec![0];
        for length in &lengths {
            starts.push(starts[starts.len() - 1] + length.1);
        }
        let tiles = query_tiles(self.head_size as u32, &lengths);
        let contexts = Buffer::of(&lengths.iter().map(|l| l.0).collect::<Vec<_>>());
        let (first_rows, tile_list) = (Buffer::of(&starts), Buffer::of(&tiles.concat()));
        let args = PagedAttention {
            out: out.address_mut(),
            q: q.address(),
            cache: self.cache(&pages, &contexts),
            starts: first_rows.address(),
            tiles: tile_list.address(),
            heads: self.heads as u32,
            window: self.window as u32,
            scale: self.scale(),
        };
        let (head_size, count) = (self.head_size as u32, tiles.len() as u32);
        match kernel {
            Kernel::Mma => run(order, args.launch(head_size, count)),
            Kernel::Wgmma => run(order, args.launch_wgmma(head_size, count)),
            Kernel::Tma => {
                let blocks = pages.keys.bytes.values().len() / (2 * self.block * self.kv_heads * self.head_size);
                let map = |cache: Address| tensor_map(&args.view(cache, head_size, blocks as u32));
                run(order, args.launch_tma(head_size, count, [map(args.cache.keys), map(args.cache.values)]));
            }
        }
        let (out, row) = (out.values(), self.heads * self.head_size);
        starts.windows(2).map(|w| out[w[0] as usize * row..w[1] as usize * row].to_vec()).collect()
    }

    /// Runs the decode kernels. Returns each chunk's output, as `prefill` does. Each chunk must be one position.
    pub(crate) fn decode(&self, chunks: &[Chunk], order: Order) -> Vec<Vec<bf16>> {
        let pages = self.pages(chunks);
        let q = Buffer::of(&self.queries(chunks));
        let mut out = Buffer::full(q.values().len(), bf16::NAN);
        let contexts: Vec<u32> = chunks.iter().map(|c| c.1.end as u32).collect();
        let (head_size, sequences) = (self.head_size as u32, chunks.len() as u32);
        let splits = decode_splits(*contexts.iter().max().unwrap());
        let mut parts = Buffer::full(decode_workspace(head_size, self.heads as u32, sequences, splits), f32::NAN);
        let contexts = Buffer::of(&contexts);
        let args = PagedDecode {
            parts: parts.address_mut(),
            q: q.address(),
            cache: self.cache(&pages, &contexts),
            heads: self.heads as u32,
            window: self.window as u32,
            splits,
            scale: self.scale(),
        };
        run(order, args.launch(head_size, sequences));
        run(order, args.combine(out.address_mut(), head_size, sequences));
        out.values().chunks(self.heads * self.head_size).map(<[bf16]>::to_vec).collect()
    }
}
