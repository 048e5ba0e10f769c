//! Compares attention with float64, in every thread order, and checks that the output's bits do not depend on the
//! batch, the chunks, the block size or the kernel.

#![allow(clippy::unwrap_used)]

mod case;
mod launches;
mod reference;
#[path = "../support/mod.rs"]
mod support;

use case::{Case, Chunk};
use half::bf16;
use launches::Kernel;
use proptest::prelude::*;
use support::{ORDERS, bits, has_wgmma, on_gpu};
use surprisal_kernels::Address;
use surprisal_kernels::attention::{PagedAttention, PagedKv};
use surprisal_kernels::cpu::Order;

/// Returns cases with GQA groups of 1 to 16 heads, every head size and block size, and windows of up to 149 keys or
/// none.
fn cases() -> impl Strategy<Value = Case> {
    let heads = prop::sample::select(vec![(1, 1), (2, 2), (4, 2), (3, 1), (8, 2), (8, 1), (16, 1)]);
    let head_size = prop::sample::select(vec![64, 96, 128, 256]);
    let block = prop::sample::select(vec![16, 32, 64, 128, 256]);
    let window = prop_oneof![Just(0), 1usize..150];
    (heads, head_size, block, window, 0usize..80, any::<u64>()).prop_map(
        |((heads, kv_heads), head_size, block, window, shared, seed)| Case {
            shared,
            ..Case::new(head_size, heads, kv_heads, block, window, seed)
        },
    )
}

/// Returns each text's length, and the two positions that cut the text into three chunks.
fn texts() -> impl Strategy<Value = Vec<(usize, [usize; 2])>> {
    let text = prop_oneof![3 => 1usize..70, 2 => 100usize..150, 1 => 500usize..530];
    let text = (text, 0.0..1.0f64, 0.0..1.0f64).prop_map(|(len, a, b)| {
        let cut = |share: f64| (share * len as f64) as usize;
        (len, [cut(a.min(b)), cut(a.max(b))])
    });
    prop::collection::vec(text, 1..4)
}

/// Returns the last chunk of each text, with at most 40 queries.
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
    #![proptest_config(support::proptest_config(24))]

    #[test]
    fn prefill_matches_float64(case in cases(), texts in texts()) {
        let chunks = tails(&texts);
        let out = case.prefill(&chunks, Order::Forward);
        for order in ORDERS {
            prop_assert_eq!(all_bits(&case.prefill(&chunks, order)), all_bits(&out), "{:?}", order);
        }
        for (chunk, out) in chunks.iter().zip(&out) {
            let error = case.worst_error(chunk, out);
            prop_assert!(error < 1.0, "{} times the allowed error, {:?}", error, chunk);
        }
    }

    #[test]
    fn decode_matches_float64(case in cases(), texts in texts()) {
        let chunks: Vec<Chunk> = texts.iter().enumerate().map(|(i, text)| (i, text.0 - 1..text.0)).collect();
        let out = case.decode(&chunks, Order::Forward);
        for order in ORDERS {
            prop_assert_eq!(all_bits(&case.decode(&chunks, order)), all_bits(&out), "{:?}", order);
        }
        for (chunk, out) in chunks.iter().zip(&out) {
            let error = case.worst_error(chunk, out);
            prop_assert!(error < 1.0, "{} times the allowed error, {:?}", error, chunk);
        }
    }

    #[test]
    fn an_fp8_cache_gives_the_same_bits_as_a_bf16_cache(case in cases(), texts in texts()) {
        let case = Case { heads: case.heads / case.kv_heads * case.kv_heads.min(2), kv_heads: case.kv_heads.min(2), fp8_exact: true, ..case };
        let packed = Case { fp8: true, ..case.clone() };
        let chunks = tails(&texts);
        let want = case.prefill(&chunks, Order::Forward);
        for order in ORDERS {
            prop_assert!(all_bits(&packed.prefill(&chunks, order)) == all_bits(&want), "prefill {:?}", order);
        }
        let last: Vec<Chunk> = texts.iter().enumerate().map(|(i, text)| (i, text.0 - 1..text.0)).collect();
        let want = case.decode(&last, Order::Forward);
        for order in ORDERS {
            prop_assert!(all_bits(&packed.decode(&last, order)) == all_bits(&want), "decode {:?}", order);
        }
    }

    /// On the shim, wgmma and mma give the same bits; on a GPU they may round differently within an instruction. The
    /// way tiles are copied never changes the bits.
    #[test]
    fn wgmma_matches_float64(case in cases(), texts in texts(), fragile in any::<bool>()) {
        let cancel = if fragile { 32 } else { 0 };
        let case = Case { head_size: if case.head_size < 128 { 64 } else { 128 }, cancel, ..case };
        let chunks = tails(&texts);
        if !has_wgmma() { return Ok(()); }
        let out = case.prefill_by(Kernel::Wgmma, &chunks, Order::Forward);
        for (kernel, order) in [Kernel::Wgmma, Kernel::Tma].into_iter().flat_map(|kernel| ORDERS.map(|order| (kernel, order))) {
            let again = case.prefill_by(kernel, &chunks, order);
            prop_assert!(all_bits(&again) == all_bits(&out), "{:?}, {:?}", kernel, order);
        }
        if !on_gpu() {
            prop_assert!(all_bits(&out) == all_bits(&case.prefill(&chunks, Order::Forward)));
        }
        for (chunk, out) in chunks.iter().zip(&out) {
            let error = case.worst_error(chunk, out);
            prop_assert!(error < 1.0, "{} times the allowed error, {:?}", error, chunk);
        }
    }

    #[test]
    fn bits_depend_only_on_the_text(case in cases(), texts in texts(), block in 4u32..9, fragile in any::<bool>()) {
        let cancel = if fragile { 32 } else { 0 };
        let case = Case { heads: case.heads / case.kv_heads, kv_heads: 1, cancel, ..case };
        let whole: Vec<Chunk> = texts.iter().enumerate().map(|(i, text)| (i, 0..text.0)).collect();
        let together = case.prefill(&whole, Order::Forward);
        let other = Case { block: 1 << block, ..case.clone() };
        for (&(text, (len, [a, b])), together) in texts.iter().copied().enumerate().collect::<Vec<_>>().iter().zip(&together) {
            let row = case.heads * case.head_size;
            let mut cut = Vec::new();
            for at in [0..a, a..b, b..len] {
                // Alone, with another block size, and with nothing after the chunk in the cache.
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
    // 3 splits, the last of which ends with a partial tile; the window begins inside a split.
    for (head_size, window) in [(64, 0), (96, 700), (128, 600), (256, 0)] {
        let case = Case::new(head_size, 2, 1, 32, window, 3);
        let (chunk, last) = ((0, 1200..1205), (0, 1204..1205));
        let out = case.prefill(&[(1, 0..20), chunk.clone()], Order::Forward).remove(1);
        let error = case.worst_error(&chunk, &out);
        assert!(error < 1.0, "head size {head_size}: {error} times the allowed error");
        let decoded = case.decode(&[last, (1, 19..20)], Order::Forward).remove(0);
        assert_eq!(bits(&decoded), bits(&out[4 * case.heads * head_size..]));
    }
    let case = Case { cancel: 2048, ..Case::new(64, 2, 1, 256, 0, 4) };
    let last = (0, 2047..2048);
    let out = case.prefill(&[(0, 2040..2048)], Order::Forward).remove(0);
    assert_eq!(bits(&case.decode(&[last], Order::Forward)[0]), bits(&out[7 * 128..]));
}

#[test]
fn unsupported_shapes_are_rejected() {
    let null = Address::NULL;
    let cache = PagedKv {
        keys: null,
        values: null,
        key_scales: null,
        value_scales: null,
        table: null,
        contexts: null,
        table_width: 1,
        block_size: 48,
        kv_heads: 4,
    };
    let args = PagedAttention { out: null, q: null, cache, starts: null, tiles: null, heads: 6, window: 0, scale: 1.0 };
    let shape_error = |args: PagedAttention, head_size| args.launch(head_size, 1).unwrap_err().to_string();
    assert_eq!(shape_error(args, 80), "paged_attention: head_size is 80, but must be 64, 96, 128 or 256");
    assert_eq!(shape_error(args, 64), "paged_attention_d64: heads is 6, but must be a multiple of kv_heads");
    let args = PagedAttention { heads: 8, ..args };
    let fits = PagedAttention { cache: PagedKv { block_size: 16, ..cache }, ..args };
    let wgmma = fits.launch_wgmma(96, 1).unwrap_err().to_string();
    assert_eq!(wgmma, "paged_attention_wgmma_d128: head_size is 96, but must be 64 or 128");
    assert_eq!(shape_error(args, 64), "paged_attention_d64: block_size is 48, but must be 16, 32, 64, 128 or 256");
}
