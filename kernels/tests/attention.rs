//! Attention against float64, in every thread order; and its bits, whatever the batch, the cut, the block size and the
//! kernel.

#![allow(clippy::unwrap_used)]

mod support;

use std::ops::Range;

use half::bf16;
use proptest::prelude::*;
use rand::seq::SliceRandom;
use support::{Buffer, ORDERS, ULP, bits, e4m3, has_wgmma, on_gpu, random, rng, run, tensor_map, worst};
use surprisal_kernels::Address;
use surprisal_kernels::attention::{PagedAttention, PagedDecode, decode_splits, decode_workspace, query_tiles};
use surprisal_kernels::cpu::Order;

/// A model's attention, and endless random texts to run it on; texts agree with text 0 on the first `shared` positions.
#[derive(Clone, Debug)]
struct World {
    head_size: usize,
    heads: usize,
    kv_heads: usize,
    block: usize,
    window: usize,
    shared: usize,
    /// If not 0: all weights are equal, and large values cancel within so many positions, so that a result is what
    /// roundings left, and any other order of summation gives other bits.
    cancel: usize,
    /// Keys and values are e4m3 values times powers of two, so that FP8 holds them exactly.
    coarse: bool,
    /// The cache is of FP8.
    fp8: bool,
    seed: u64,
}

/// Of a text, the queries at these positions, with all keys up to the last.
type Chunk = (usize, Range<usize>);

/// Which of the prefill kernels.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    Mma,
    Wgmma,
    Tma,
}

/// Of a cache, what the kernels read, and the scales of FP8.
type Stored = (Buffer<u8>, Buffer<f32>);

impl World {
    /// Queries, keys or values (0, 1, 2) of a text's first positions.
    fn rows(&self, text: usize, kind: usize, len: usize) -> Vec<bf16> {
        let width = self.head_size * if kind == 0 { self.heads } else { self.kv_heads };
        let from =
            |text: usize| random(&mut rng(self.seed, (text * 3 + kind) as u64), len * width, [2.0, 2.0, 1.0][kind]);
        let mut rows = from(text);
        let shared = self.shared.min(len) * width;
        rows[..shared].copy_from_slice(&from(0)[..shared]);
        if self.coarse && kind > 0 {
            for (i, value) in rows.iter_mut().enumerate() {
                let exact = e4m3((value.to_bits() >> 3) as u8 & 0xbf) * 2f64.powi((i / self.head_size % 5) as i32 - 2);
                *value = bf16::from_f64(exact);
            }
        }
        if self.cancel > 0 && kind == 0 {
            rows.fill(bf16::ZERO);
        }
        if self.cancel > 0 && kind == 2 {
            for t in 0..len {
                let mirror = t / self.cancel * self.cancel + self.cancel - 1 - t % self.cancel;
                for i in 0..width {
                    let large = rows[t * width + i].to_f32() * 2f32.powi((t % 19) as i32);
                    let value = if mirror < t { -rows[mirror * width + i].to_f32() } else { large };
                    rows[t * width + i] = bf16::from_f32(value);
                }
            }
        }
        rows
    }

    /// A cache as the kernels take it: bf16, or bytes with the least scale of each head of each slot that holds it.
    fn stored(&self, cache: &[bf16]) -> Stored {
        if !self.fp8 {
            let bytes: Vec<u8> = cache.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
            return (Buffer::of(&bytes), Buffer::of(&[]));
        }
        let sizes: Vec<f64> = (0..0x7f).map(e4m3).collect();
        let (mut bytes, mut scales) = (Vec::new(), Vec::new());
        for head in cache.chunks(self.head_size) {
            let largest = head.iter().map(|x| x.to_f32().abs()).fold(0.0, f32::max);
            let scale = (-30..30).map(|e| 2f32.powi(e)).find(|scale| largest <= 448.0 * scale).unwrap();
            scales.push(if head[0].is_nan() { f32::NAN } else { scale });
            for x in head {
                let size = x.to_f64().abs() / f64::from(scale);
                let byte = sizes.partition_point(|&s| s < size) as u8;
                assert!(x.is_nan() || e4m3(byte) == size, "{x} is no e4m3 of scale {scale}");
                bytes.push(byte | if x.is_sign_negative() { 0x80 } else { 0 });
            }
        }
        (Buffer::of(&bytes), Buffer::of(&scales))
    }

    /// The caches of keys and values, and each chunk's row of blocks. Blocks lie in random order; whole blocks of the shared
    /// positions are the same; unused slots are NaN, unused table entries point nowhere.
    fn paged(&self, chunks: &[Chunk]) -> ([Stored; 2], Buffer<i32>, usize) {
        let row = self.kv_heads * self.head_size;
        let needed = |chunk: &Chunk| chunk.1.end.div_ceil(self.block);
        let width = chunks.iter().map(needed).max().unwrap();
        let total = chunks.iter().map(needed).sum::<usize>() + 1;
        let mut free: Vec<usize> = (0..total).collect();
        free.shuffle(&mut rng(self.seed, 1 << 40));
        let mut table = vec![1i32 << 28; chunks.len() * width];
        let mut caches = [vec![bf16::NAN; total * self.block * row], vec![bf16::NAN; total * self.block * row]];
        for (s, chunk) in chunks.iter().enumerate() {
            let sources = [1, 2].map(|kind| self.rows(chunk.0, kind, chunk.1.end));
            for b in 0..needed(chunk) {
                let whole = (b + 1) * self.block <= self.shared.min(chunk.1.end).min(chunks[0].1.end);
                table[s * width + b] = if whole && s > 0 { table[b] } else { free.pop().unwrap() as i32 };
            }
            for t in 0..chunk.1.end {
                let at = (table[s * width + t / self.block] as usize * self.block + t % self.block) * row;
                for (cache, source) in caches.iter_mut().zip(&sources) {
                    cache[at..at + row].copy_from_slice(&source[t * row..][..row]);
                }
            }
        }
        (caches.map(|cache| self.stored(&cache)), Buffer::of(&table), width)
    }

    fn queries(&self, chunks: &[Chunk]) -> Vec<bf16> {
        let row = self.heads * self.head_size;
        let of = |(text, at): &Chunk| self.rows(*text, 0, at.end)[at.start * row..].to_vec();
        chunks.iter().flat_map(of).collect()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_size as f32).sqrt()
    }

    /// Each chunk's output: `[positions][heads][head_size]`.
    fn prefill(&self, chunks: &[Chunk], order: Order) -> Vec<Vec<bf16>> {
        self.prefill_by(Kernel::Mma, chunks, order)
    }

    fn prefill_by(&self, kernel: Kernel, chunks: &[Chunk], order: Order) -> Vec<Vec<bf16>> {
        let ([keys, values], table, width) = self.paged(chunks);
        let q = Buffer::of(&self.queries(chunks));
        let mut out = Buffer::full(q.values().len(), bf16::NAN);
        let lengths: Vec<(u32, u32)> = chunks.iter().map(|c| (c.1.end as u32, c.1.len() as u32)).collect();
        let contexts: Vec<u32> = lengths.iter().map(|l| l.0).collect();
        let mut starts = vec![0];
        for length in &lengths {
            starts.push(starts[starts.len() - 1] + length.1);
        }
        let tiles = query_tiles(self.head_size as u32, &lengths);
        let integers = [contexts, starts.clone(), tiles.concat().iter().map(|&x| x as u32).collect()];
        let [contexts, first, of_tiles] = integers.map(|values| Buffer::of(&values));
        let args = PagedAttention {
            out: out.address_mut(),
            q: q.address(),
            keys: keys.0.address(),
            values: values.0.address(),
            key_scales: if self.fp8 { keys.1.address() } else { Address::NULL },
            value_scales: if self.fp8 { values.1.address() } else { Address::NULL },
            table: table.address(),
            contexts: contexts.address(),
            starts: first.address(),
            tiles: of_tiles.address(),
            table_width: width as u32,
            block_size: self.block as u32,
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            window: self.window as u32,
            scale: self.scale(),
        };
        let (head_size, count) = (self.head_size as u32, tiles.len() as u32);
        match kernel {
            Kernel::Mma => run(order, args.launch(head_size, count)),
            Kernel::Wgmma => run(order, args.launch_wgmma(head_size, count)),
            Kernel::Tma => {
                let blocks = keys.0.values().len() / (2 * self.block * self.kv_heads * self.head_size);
                let map = |cache: Address| tensor_map(&args.view(cache, head_size, blocks as u32));
                run(order, args.launch_tma(head_size, count, [map(args.keys), map(args.values)]));
            }
        }
        let (out, row) = (out.values(), self.heads * self.head_size);
        starts.windows(2).map(|w| out[w[0] as usize * row..w[1] as usize * row].to_vec()).collect()
    }

    /// As `prefill`, where each chunk is one position.
    fn decode(&self, chunks: &[Chunk], order: Order) -> Vec<Vec<bf16>> {
        let ([keys, values], table, width) = self.paged(chunks);
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
            keys: keys.0.address(),
            values: values.0.address(),
            key_scales: if self.fp8 { keys.1.address() } else { Address::NULL },
            value_scales: if self.fp8 { values.1.address() } else { Address::NULL },
            table: table.address(),
            contexts: contexts.address(),
            table_width: width as u32,
            block_size: self.block as u32,
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            window: self.window as u32,
            splits,
            scale: self.scale(),
        };
        run(order, args.launch(head_size, sequences));
        run(order, args.combine(out.address_mut(), head_size, sequences));
        out.values().chunks(self.heads * self.head_size).map(<[bf16]>::to_vec).collect()
    }

    /// In units of what roundings of weights and results to bf16 may add up to.
    fn worst_error(&self, (text, at): &Chunk, out: &[bf16]) -> f64 {
        let d = self.head_size;
        let [q, keys, values] = [0, 1, 2].map(|kind| self.rows(*text, kind, at.end));
        let mut errors = Vec::new();
        for (p, h) in at.clone().flat_map(|p| (0..self.heads).map(move |h| (p, h))) {
            let kv = |t: usize| (t * self.kv_heads + h / (self.heads / self.kv_heads)) * d;
            let q = &q[(p * self.heads + h) * d..][..d];
            let first = if self.window > 0 { (p + 1).saturating_sub(self.window) } else { 0 };
            let dot = |t: usize| (0..d).map(|i| q[i].to_f64() * keys[kv(t) + i].to_f64()).sum::<f64>();
            let scores: Vec<f64> = (first..=p).map(|t| dot(t) * f64::from(self.scale())).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..d {
                let term = |(t, w): (usize, &f64)| w / total * values[kv(first + t) + i].to_f64();
                let want: f64 = weights.iter().enumerate().map(term).sum();
                let size: f64 = weights.iter().enumerate().map(|x| term(x).abs()).sum();
                let got = out[((p - at.start) * self.heads + h) * d + i].to_f64();
                errors.push((got, want, ULP * (want.abs() + size) + 1e-5 * size));
            }
        }
        worst(errors)
    }
}

/// GQA of 1 to 16, every head size and block size, windows of any length or none.
fn worlds() -> impl Strategy<Value = World> {
    let heads = prop::sample::select(vec![(1, 1), (2, 2), (4, 2), (3, 1), (8, 2), (8, 1), (16, 1)]);
    let head_size = prop::sample::select(vec![64, 96, 128, 256]);
    let block = prop::sample::select(vec![16, 32, 64, 128, 256]);
    let window = prop_oneof![Just(0), 1usize..150];
    (heads, head_size, block, window, 0usize..80, any::<u64>()).prop_map(
        |((heads, kv_heads), head_size, block, window, shared, seed)| World {
            head_size,
            heads,
            kv_heads,
            block,
            window,
            shared,
            cancel: 0,
            coarse: false,
            fp8: false,
            seed,
        },
    )
}

/// Texts' lengths, and where each is cut in three.
fn texts() -> impl Strategy<Value = Vec<(usize, [usize; 2])>> {
    let text = prop_oneof![3 => 1usize..70, 2 => 100usize..150, 1 => 500usize..530];
    let text = (text, 0.0..1.0f64, 0.0..1.0f64).prop_map(|(len, a, b)| {
        let cut = |share: f64| (share * len as f64) as usize;
        (len, [cut(a.min(b)), cut(a.max(b))])
    });
    prop::collection::vec(text, 1..4)
}

/// The last chunk of each text, of 40 queries at most.
fn tails(texts: &[(usize, [usize; 2])]) -> Vec<Chunk> {
    texts
        .iter()
        .enumerate()
        .map(|(i, &(len, [_, cut]))| (i, cut.max(len.saturating_sub(40)).min(len - 1)..len))
        .collect()
}

fn all_bits(outs: &[Vec<bf16>]) -> Vec<Vec<u16>> {
    outs.iter().map(|out| bits(out)).collect()
}

proptest! {
    #![proptest_config(support::cases(24))]

    #[test]
    fn prefill_matches_float64(world in worlds(), texts in texts()) {
        let chunks = tails(&texts);
        let out = world.prefill(&chunks, Order::Forward);
        for order in ORDERS {
            prop_assert_eq!(all_bits(&world.prefill(&chunks, order)), all_bits(&out), "{:?}", order);
        }
        for (chunk, out) in chunks.iter().zip(&out) {
            let error = world.worst_error(chunk, out);
            prop_assert!(error < 1.0, "{} of what is allowed, {:?}", error, chunk);
        }
    }

    #[test]
    fn decode_matches_float64(world in worlds(), texts in texts()) {
        let chunks: Vec<Chunk> = texts.iter().enumerate().map(|(i, text)| (i, text.0 - 1..text.0)).collect();
        let out = world.decode(&chunks, Order::Forward);
        for order in ORDERS {
            prop_assert_eq!(all_bits(&world.decode(&chunks, order)), all_bits(&out), "{:?}", order);
        }
        for (chunk, out) in chunks.iter().zip(&out) {
            let error = world.worst_error(chunk, out);
            prop_assert!(error < 1.0, "{} of what is allowed, {:?}", error, chunk);
        }
    }

    #[test]
    fn an_fp8_cache_has_the_bits_of_what_it_holds(world in worlds(), texts in texts()) {
        let world = World { heads: world.heads / world.kv_heads * world.kv_heads.min(2), kv_heads: world.kv_heads.min(2), coarse: true, ..world };
        let packed = World { fp8: true, ..world.clone() };
        let chunks = tails(&texts);
        let want = world.prefill(&chunks, Order::Forward);
        for order in ORDERS {
            prop_assert!(all_bits(&packed.prefill(&chunks, order)) == all_bits(&want), "prefill {:?}", order);
        }
        let last: Vec<Chunk> = texts.iter().enumerate().map(|(i, text)| (i, text.0 - 1..text.0)).collect();
        let want = world.decode(&last, Order::Forward);
        for order in ORDERS {
            prop_assert!(all_bits(&packed.decode(&last, order)) == all_bits(&want), "decode {:?}", order);
        }
    }

    /// What the shim computes for both is the same; how a GPU rounds inside an instruction is its own affair. How tiles come changes
    /// nothing on either.
    #[test]
    fn wgmma_computes_what_mma_does(world in worlds(), texts in texts(), fragile in any::<bool>()) {
        let cancel = if fragile { 32 } else { 0 };
        let world = World { head_size: if world.head_size < 128 { 64 } else { 128 }, cancel, ..world };
        let chunks = tails(&texts);
        if !has_wgmma() { return Ok(()); }
        let out = world.prefill_by(Kernel::Wgmma, &chunks, Order::Forward);
        for (kernel, order) in [Kernel::Wgmma, Kernel::Tma].into_iter().flat_map(|kernel| ORDERS.map(|order| (kernel, order))) {
            let again = world.prefill_by(kernel, &chunks, order);
            prop_assert!(all_bits(&again) == all_bits(&out), "{:?}, {:?}", kernel, order);
        }
        if !on_gpu() {
            prop_assert!(all_bits(&out) == all_bits(&world.prefill(&chunks, Order::Forward)));
        }
        for (chunk, out) in chunks.iter().zip(&out) {
            let error = world.worst_error(chunk, out);
            prop_assert!(error < 1.0, "{} of what is allowed, {:?}", error, chunk);
        }
    }

    #[test]
    fn bits_depend_on_the_text_alone(world in worlds(), texts in texts(), block in 4u32..9, fragile in any::<bool>()) {
        let cancel = if fragile { 32 } else { 0 };
        let world = World { heads: world.heads / world.kv_heads, kv_heads: 1, cancel, ..world };
        let whole: Vec<Chunk> = texts.iter().enumerate().map(|(i, text)| (i, 0..text.0)).collect();
        let together = world.prefill(&whole, Order::Forward);
        let other = World { block: 1 << block, ..world.clone() };
        for (&(text, (len, [a, b])), together) in texts.iter().copied().enumerate().collect::<Vec<_>>().iter().zip(&together) {
            let row = world.heads * world.head_size;
            let mut cut = Vec::new();
            for at in [0..a, a..b, b..len] {
                // Alone, in other blocks, and nothing after the chunk in the cache.
                if !at.is_empty() { cut.extend(other.prefill(&[(text, at)], Order::Forward).remove(0)); }
            }
            prop_assert!(bits(&cut) == bits(together), "cut at {} and {} of {}", a, b, len);
            for at in [0, a, b, len - 1] {
                let at = at.min(len - 1);
                let decoded = other.decode(&[(text, at..at + 1)], Order::Forward).remove(0);
                prop_assert!(bits(&decoded) == bits(&together[at * row..][..row]), "decode at {} of {}", at, len);
            }
        }
    }
}

#[test]
fn keys_of_many_splits() {
    // 3 splits, the tile of the last one partial; the window begins inside a split.
    for (head_size, window) in [(64, 0), (96, 700), (128, 600), (256, 0)] {
        let world = World {
            head_size,
            heads: 2,
            kv_heads: 1,
            block: 32,
            window,
            shared: 0,
            cancel: 0,
            coarse: false,
            fp8: false,
            seed: 3,
        };
        let (chunk, last) = ((0, 1200..1205), (0, 1204..1205));
        let out = world.prefill(&[(1, 0..20), chunk.clone()], Order::Forward).remove(1);
        let error = world.worst_error(&chunk, &out);
        assert!(error < 1.0, "{head_size}: {error} of what is allowed");
        let decoded = world.decode(&[last, (1, 19..20)], Order::Forward).remove(0);
        assert_eq!(bits(&decoded), bits(&out[4 * world.heads * head_size..]));
    }
    let world = World {
        head_size: 64,
        heads: 2,
        kv_heads: 1,
        block: 256,
        window: 0,
        shared: 0,
        cancel: 2048,
        coarse: false,
        fp8: false,
        seed: 4,
    };
    let last = (0, 2047..2048);
    let out = world.prefill(&[(0, 2040..2048)], Order::Forward).remove(0);
    assert_eq!(bits(&world.decode(&[last], Order::Forward)[0]), bits(&out[7 * 128..]));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let null = Address::NULL;
    let args = PagedAttention {
        out: null,
        q: null,
        keys: null,
        values: null,
        key_scales: null,
        value_scales: null,
        table: null,
        contexts: null,
        starts: null,
        tiles: null,
        table_width: 1,
        block_size: 48,
        heads: 6,
        kv_heads: 4,
        window: 0,
        scale: 1.0,
    };
    let refused = |args: PagedAttention, head_size| args.launch(head_size, 1).unwrap_err().to_string();
    assert_eq!(refused(args, 80), "paged_attention: head_size is 80, but must be 64, 96, 128 or 256");
    assert_eq!(refused(args, 64), "paged_attention_d64: heads is 6, but must be a multiple of kv_heads");
    let args = PagedAttention { heads: 8, ..args };
    let wgmma = PagedAttention { block_size: 16, ..args }.launch_wgmma(96, 1).unwrap_err().to_string();
    assert_eq!(wgmma, "paged_attention_wgmma_d128: head_size is 96, but must be 64 or 128");
    assert_eq!(refused(args, 64), "paged_attention_d64: block_size is 48, but must be 16, 32, 64, 128 or 256");
}
