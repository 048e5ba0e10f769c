//! Compares log-probabilities with float64, in every thread order, each row alone and in a batch.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use rand::RngExt;
use support::{Buffer, ORDERS, rng, run};
use surprisal_kernels::Address;
use surprisal_kernels::cpu::Order;
use surprisal_kernels::logprobs::{LogprobCombine, LogprobOut, LogprobTargets, LogprobTiles, PART_BYTES, tiles, words};

/// Returns whether a token is in a row's set. Depending on the target, the set has only the target, all tokens, or the
/// target and some others.
fn member(id: u32, target: i32, vocabulary: usize) -> bool {
    let target = target as u32;
    let with = match target % 3 {
        0 => false,
        1 => true,
        _ => id % 7 == target % 5,
    };
    (id as usize) < vocabulary && (with || id == target)
}

#[derive(Clone, Debug, PartialEq)]
struct Out {
    logprobs: Vec<f32>,
    ranks: Vec<i32>,
    entropies: Vec<f32>,
    subsets: Vec<f32>,
    top_logprobs: Vec<f32>,
    top_ids: Vec<i32>,
}

/// Rows of logits. Rank `i` has the columns from `bounds[i]` to `bounds[i + 1]`; [`member`] defines each row's set of
/// tokens.
#[derive(Clone, Copy)]
struct Batch<'a> {
    logits: &'a [f32],
    /// Columns per row in memory, including those beyond the vocabulary.
    stride: usize,
    targets: &'a [i32],
    top: usize,
    bounds: &'a [usize],
}

/// The ranks' results, gathered for the last step.
struct Gathered {
    tiles: u32,
    target_logits: Buffer<f32>,
    parts: Buffer<u8>,
    top_logits: Buffer<f32>,
    top_ids: Buffer<i32>,
}

fn after(address: Address, bytes: usize) -> Address {
    Address::new(address.get() + bytes as u64)
}

impl Batch<'_> {
    fn rows(&self) -> usize {
        self.targets.len()
    }

    fn ranks(&self) -> usize {
        self.bounds.len() - 1
    }

    fn run(&self, order: Order) -> Out {
        let rows = self.rows();
        let tiles = self.bounds.windows(2).map(|own| tiles((own[1] - own[0]) as u32)).max().unwrap().max(1);
        let parts = self.ranks() * rows * tiles as usize;
        let mut gathered = Gathered {
            tiles,
            target_logits: Buffer::full(self.ranks() * rows, f32::NAN),
            parts: Buffer::full(parts * PART_BYTES, u8::MAX),
            top_logits: Buffer::full(parts * self.top, f32::NAN),
            top_ids: Buffer::full(parts * self.top, i32::MIN),
        };
        let logits = Buffer::of(self.logits);
        self.find_targets(order, &logits, &mut gathered);
        self.scan_tiles(order, &logits, &mut gathered);
        self.combine(order, &gathered)
    }

    fn find_targets(&self, order: Order, logits: &Buffer<f32>, gathered: &mut Gathered) {
        let targets = Buffer::of(self.targets);
        for (rank, own) in self.bounds.windows(2).enumerate() {
            let args = LogprobTargets {
                out: after(gathered.target_logits.address_mut(), rank * self.rows() * 4),
                logits: after(logits.address(), own[0] * 4),
                targets: targets.address(),
                stride: self.stride as u64,
                rows: self.rows() as u32,
                first: own[0] as u32,
                vocabulary: (own[1] - own[0]) as u32,
            };
            run(order, args.launch());
        }
    }

    fn scan_tiles(&self, order: Order, logits: &Buffer<f32>, gathered: &mut Gathered) {
        let parts = self.rows() * gathered.tiles as usize;
        for (rank, own) in self.bounds.windows(2).enumerate() {
            let members = Buffer::of(&self.members(own));
            let args = LogprobTiles {
                parts: after(gathered.parts.address_mut(), rank * parts * PART_BYTES),
                top_logits: after(gathered.top_logits.address_mut(), rank * parts * self.top * 4),
                top_ids: after(gathered.top_ids.address_mut(), rank * parts * self.top * 4),
                logits: after(logits.address(), own[0] * 4),
                target_logits: gathered.target_logits.address(),
                members: members.address(),
                stride: self.stride as u64,
                first: own[0] as u32,
                vocabulary: (own[1] - own[0]) as u32,
                ranks: self.ranks() as u32,
                top: self.top as u32,
            };
            run(order, args.launch(self.rows() as u32, gathered.tiles));
        }
    }

    /// Returns each row's set as a bitmap of a rank's columns.
    fn members(&self, own: &[usize]) -> Vec<u32> {
        let vocabulary = self.bounds[self.ranks()];
        let count = words((own[1] - own[0]) as u32) as usize;
        let mut bitmaps = vec![0; self.rows() * count];
        for (row, &target) in self.targets.iter().enumerate() {
            for id in (own[0]..own[1]).filter(|&id| member(id as u32, target, vocabulary)) {
                let column = id - own[0];
                bitmaps[row * count + column / 32] |= 1 << (column % 32);
            }
        }
        bitmaps
    }

    fn combine(&self, order: Order, gathered: &Gathered) -> Out {
        let (rows, listed) = (self.rows(), self.rows() * self.top);
        let [mut logprobs, mut entropies, mut subsets, mut top_logprobs] =
            [rows, rows, rows, listed].map(|len| Buffer::full(len, f32::NAN));
        let [mut ranks, mut top_ids] = [rows, listed].map(|len| Buffer::full(len, i32::MIN));
        let args = LogprobCombine {
            out: LogprobOut {
                logprobs: logprobs.address_mut(),
                ranks: ranks.address_mut(),
                entropies: entropies.address_mut(),
                subsets: subsets.address_mut(),
                top_logprobs: top_logprobs.address_mut(),
                top_ids: top_ids.address_mut(),
            },
            parts: gathered.parts.address(),
            top_logits: gathered.top_logits.address(),
            top_ids: gathered.top_ids.address(),
            target_logits: gathered.target_logits.address(),
            ranks: self.ranks() as u32,
            tiles: gathered.tiles,
            top: self.top as u32,
        };
        run(order, args.launch(rows as u32));
        Out {
            logprobs: logprobs.values(),
            ranks: ranks.values(),
            entropies: entropies.values(),
            subsets: subsets.values(),
            top_logprobs: top_logprobs.values(),
            top_ids: top_ids.values(),
        }
    }
}

proptest! {
    #![proptest_config(support::proptest_config(24))]

    #[test]
    fn logprobs_match_float64(
        rows in 1usize..4,
        vocabulary in prop_oneof![1usize..40, 4000usize..4200, 8000usize..13000],
        padding in 0usize..9,
        top in 0usize..12,
        spread in 0.1f32..60.0,
        coarse in any::<bool>(),
        ranks in 1usize..5,
        seed in any::<u64>(),
    ) {
        let mut rng = rng(seed, 0);
        let stride = vocabulary + padding;
        // If there are four ranks, the first has no tokens.
        let bounds: Vec<usize> = (0..=ranks).map(|rank| if ranks == 4 { rank.max(1) - 1 } else { rank })
            .map(|rank| vocabulary * rank / if ranks == 4 { 3 } else { ranks }).collect();
        // Coarse logits have ties. Padding columns would win if they were read.
        let one = |x: f32| if coarse { x.round() } else { x };
        let mut logits: Vec<f32> = (0..rows * stride).map(|_| one(rng.random_range(-spread..spread))).collect();
        for row in logits.chunks_mut(stride) {
            row[vocabulary..].fill(1e30);
        }
        let targets: Vec<i32> = (0..rows).map(|_| rng.random_range(0..vocabulary as i32)).collect();
        let batch = Batch { logits: &logits, stride, targets: &targets, top, bounds: &bounds };
        let out = batch.run(Order::Forward);
        for order in ORDERS {
            prop_assert_eq!(&batch.run(order), &out);
        }
        for row in 0..rows {
            let all = &logits[row * stride..];
            let alone = Batch { logits: all, targets: &targets[row..=row], ..batch }.run(Order::Forward);
            prop_assert_eq!(alone.logprobs[0].to_bits(), out.logprobs[row].to_bits());
            prop_assert_eq!(alone.entropies[0].to_bits(), out.entropies[row].to_bits());
            let x: Vec<f64> = all[..vocabulary].iter().map(|&x| f64::from(x)).collect();
            let max = x.iter().copied().fold(f64::MIN, f64::max);
            let lse = max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            let target = x[targets[row] as usize];
            let near = |got: f32, want: f64| (f64::from(got) - want).abs() < 1e-6 * (1.0 + want.abs());
            prop_assert!(near(out.logprobs[row], target - lse), "{} {}", out.logprobs[row], target - lse);
            prop_assert_eq!(out.ranks[row] as usize, 1 + x.iter().filter(|&&x| x > target).count());
            let entropy: f64 = x.iter().map(|x| -(x - lse).exp() * (x - lse)).sum();
            prop_assert!((f64::from(out.entropies[row]) - entropy).abs() < 3e-6 * (1.0 + entropy), "{} {}", out.entropies[row], entropy);
            let members = (0..vocabulary).filter(|&id| member(id as u32, targets[row], vocabulary));
            let in_set = members.clone().map(|id| (x[id] - lse).exp()).sum::<f64>().ln();
            let got = out.subsets[row];
            prop_assert!(near(got, in_set) && got <= 0.0, "{} {}", got, in_set);
            prop_assert_eq!(alone.subsets[0].to_bits(), got.to_bits());
            if members.count() == 1 {
                prop_assert_eq!(got.to_bits(), out.logprobs[row].to_bits());
            }
            let mut order: Vec<usize> = (0..vocabulary).collect();
            order.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).unwrap().then(a.cmp(&b)));
            for k in 0..top {
                let (id, logprob) = (out.top_ids[row * top + k], out.top_logprobs[row * top + k]);
                match order.get(k) {
                    Some(&want) => prop_assert!(id as usize == want && near(logprob, x[want] - lse), "{} {}", id, want),
                    None => prop_assert!(id == -1 && logprob == f32::NEG_INFINITY),
                }
            }
        }
    }
}

#[test]
fn impossible_tokens_score_minus_infinity_and_nan_propagates() {
    let mut logits = vec![f32::NEG_INFINITY; 9000];
    (logits[3], logits[8500]) = (1.0, 1.0);
    let run = |logits: &[f32], target, top| {
        Batch { logits, stride: 9000, targets: &[target], top, bounds: &[0, 9000] }.run(Order::Forward)
    };
    let out = run(&logits, 8500, 3);
    assert_eq!((out.logprobs[0], out.ranks[0], out.entropies[0]), (-(2f32.ln()), 1, 2f32.ln()));
    assert_eq!((&out.top_ids[..2], out.top_logprobs[2]), (&[3, 8500][..], f32::NEG_INFINITY));
    let out = run(&logits, 4, 0);
    assert_eq!((out.logprobs[0], out.ranks[0]), (f32::NEG_INFINITY, 3));
    logits[7] = f32::NAN;
    assert!(run(&logits, 3, 1).logprobs[0].is_nan());
}

#[test]
fn unsupported_shapes_are_rejected() {
    let null = Address::NULL;
    let args = LogprobTiles {
        parts: null,
        top_logits: null,
        top_ids: null,
        logits: null,
        target_logits: null,
        members: null,
        stride: 100,
        first: 0,
        vocabulary: 101,
        ranks: 1,
        top: 0,
    };
    let shape_error = |args: LogprobTiles, tiles| args.launch(1, tiles).unwrap_err().to_string();
    assert_eq!(shape_error(args, 1), "logprobs_tile: vocabulary is 101, but must be at most the stride and below 2^30");
    let args = LogprobTiles { vocabulary: 5000, stride: 5000, ..args };
    assert_eq!(
        shape_error(args, 1),
        "logprobs_tile: tiles is 1, but must be from 1 to 262143 and enough for the vocabulary"
    );
    assert_eq!(shape_error(LogprobTiles { top: 65, ..args }, 2), "logprobs_tile: top is 65, but must be at most 64");
}
