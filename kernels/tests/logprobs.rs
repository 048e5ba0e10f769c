//! Log-probabilities against float64, in every thread order, each row alone and in company.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use rand::RngExt;
use support::{ORDERS, rng, run};
use surprisal_kernels::Address;
use surprisal_kernels::cpu::Order;
use surprisal_kernels::logprobs::{LogprobOut, LogprobTiles, PART_BYTES, tiles, words};

/// Whether a token is in a row's set: by the target alone, every one, or the target and some others.
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

/// `logits`: rows of `stride`, of which `vocabulary` columns are real. Each row's set is that of [`member`].
fn logprobs(order: Order, logits: &[f32], vocabulary: usize, stride: usize, targets: &[i32], top: usize) -> Out {
    let (rows, tiles) = (targets.len(), tiles(vocabulary as u32) as usize);
    let mut parts = vec![0u64; rows * tiles * PART_BYTES / 8];
    let (mut top_logits, mut top_ids) = (vec![f32::NAN; rows * tiles * top], vec![i32::MIN; rows * tiles * top]);
    let mut out = Out {
        logprobs: vec![f32::NAN; rows],
        ranks: vec![0; rows],
        entropies: vec![f32::NAN; rows],
        subsets: vec![f32::NAN; rows],
        top_logprobs: vec![f32::NAN; rows * top],
        top_ids: vec![i32::MIN; rows * top],
    };
    let word = |index: u32, target: i32| {
        (0..32).filter(|bit| member(index * 32 + bit, target, vocabulary)).fold(0_u32, |word, bit| word | 1 << bit)
    };
    let words = words(vocabulary as u32);
    let members: Vec<u32> =
        targets.iter().flat_map(|&target| (0..words).map(move |index| word(index, target))).collect();
    let args = LogprobTiles {
        parts: Address::of_mut(&mut parts),
        top_logits: Address::of_mut(&mut top_logits),
        top_ids: Address::of_mut(&mut top_ids),
        logits: Address::of(logits),
        targets: Address::of(targets),
        members: Address::of(&members),
        stride: stride as u64,
        vocabulary: vocabulary as u32,
        top: top as u32,
    };
    let results = LogprobOut {
        logprobs: Address::of_mut(&mut out.logprobs),
        ranks: Address::of_mut(&mut out.ranks),
        entropies: Address::of_mut(&mut out.entropies),
        subsets: Address::of_mut(&mut out.subsets),
        top_logprobs: Address::of_mut(&mut out.top_logprobs),
        top_ids: Address::of_mut(&mut out.top_ids),
    };
    run(order, args.launch(rows as u32));
    run(order, args.combine(results, rows as u32));
    out
}

proptest! {
    #![proptest_config(support::cases(24))]

    #[test]
    fn logprobs_match_float64(
        rows in 1usize..4,
        vocabulary in prop_oneof![1usize..40, 4000usize..4200, 8000usize..13000],
        padding in 0usize..9,
        top in 0usize..12,
        spread in 0.1f32..60.0,
        coarse in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut rng = rng(seed, 0);
        let stride = vocabulary + padding;
        // Coarse logits have ties. Padding columns would win if they were read.
        let one = |x: f32| if coarse { x.round() } else { x };
        let mut logits: Vec<f32> = (0..rows * stride).map(|_| one(rng.random_range(-spread..spread))).collect();
        for row in logits.chunks_mut(stride) {
            row[vocabulary..].fill(1e30);
        }
        let targets: Vec<i32> = (0..rows).map(|_| rng.random_range(0..vocabulary as i32)).collect();
        let out = logprobs(Order::Forward, &logits, vocabulary, stride, &targets, top);
        for order in ORDERS {
            prop_assert_eq!(&logprobs(order, &logits, vocabulary, stride, &targets, top), &out);
        }
        for row in 0..rows {
            let all = &logits[row * stride..];
            let alone = logprobs(Order::Forward, all, vocabulary, stride, &targets[row..=row], top);
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
            let mass = members.clone().map(|id| (x[id] - lse).exp()).sum::<f64>().ln();
            let got = out.subsets[row];
            prop_assert!(near(got, mass) && got <= 0.0, "{} {}", got, mass);
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
fn impossible_tokens_are_minus_infinity_and_nan_stays() {
    let mut logits = vec![f32::NEG_INFINITY; 9000];
    (logits[3], logits[8500]) = (1.0, 1.0);
    let out = logprobs(Order::Forward, &logits, 9000, 9000, &[8500], 3);
    assert_eq!((out.logprobs[0], out.ranks[0], out.entropies[0]), (-(2f32.ln()), 1, 2f32.ln()));
    assert_eq!((&out.top_ids[..2], out.top_logprobs[2]), (&[3, 8500][..], f32::NEG_INFINITY));
    let out = logprobs(Order::Forward, &logits, 9000, 9000, &[4], 0);
    assert_eq!((out.logprobs[0], out.ranks[0]), (f32::NEG_INFINITY, 3));
    logits[7] = f32::NAN;
    assert!(logprobs(Order::Forward, &logits, 9000, 9000, &[3], 1).logprobs[0].is_nan());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let null = Address::NULL;
    let args = LogprobTiles {
        parts: null,
        top_logits: null,
        top_ids: null,
        logits: null,
        targets: null,
        members: null,
        stride: 100,
        vocabulary: 101,
        top: 0,
    };
    let refused = |args: LogprobTiles| args.launch(1).unwrap_err().to_string();
    assert_eq!(refused(args), "logprobs_tile: vocabulary is 101, but must be from 1 to the stride, below 2^30");
    assert_eq!(
        refused(LogprobTiles { vocabulary: 100, top: 65, ..args }),
        "logprobs_tile: top is 65, but must be at most 64"
    );
}
