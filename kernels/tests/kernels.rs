//! Every kernel against float64 over random shapes, in every thread order, alone and in company.

#![allow(unsafe_code, clippy::unwrap_used)]

use half::bf16;
use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_kernels::cpu::{Arg, LaunchError, Order, launch};

const ORDERS: [Order; 3] = [Order::Forward, Order::Reverse, Order::Random(7)];
const D: usize = 64;
const BLOCK: usize = 16;

fn random(rng: &mut ChaCha8Rng, len: usize, spread: f32) -> Vec<bf16> {
    (0..len).map(|_| bf16::from_f32(rng.random_range(-spread..spread))).collect()
}

/// 16-byte aligned, as device memory is.
#[derive(Clone)]
#[repr(align(16))]
struct Lane([bf16; 8]);

struct Buffer(Vec<Lane>);

impl Buffer {
    fn of(values: &[bf16]) -> Self {
        assert_eq!(values.len() % 8, 0);
        Self(values.chunks(8).map(|chunk| Lane(std::array::from_fn(|i| chunk[i]))).collect())
    }

    fn nan(len: usize) -> Self {
        Self::of(&vec![bf16::NAN; len])
    }

    fn values(&self) -> Vec<bf16> {
        self.0.iter().flat_map(|lane| lane.0).collect()
    }
}

fn rms_norm(x: &[bf16], w: &[bf16], threads: u32, order: Order) -> Vec<bf16> {
    let (x, w, mut out) = (Buffer::of(x), Buffer::of(w), Buffer::nan(x.len()));
    let (rows, n) = ((x.0.len() / w.0.len()) as u32, (w.0.len() * 8) as i32);
    let (o, xp, wp, eps) = (out.0.as_mut_ptr(), x.0.as_ptr(), w.0.as_ptr(), 1e-5f32);
    let args = [Arg::new(&o), Arg::new(&xp), Arg::new(&wp), Arg::new(&n), Arg::new(&eps)];
    // SAFETY: the buffers are as long as rows and n say.
    unsafe { launch("rms_norm_bf16", [rows, 1, 1], [threads, 1, 1], 0, &args, order) }.unwrap();
    out.values()
}

/// Sequences over a shuffled block table; unused slots are NaN, unused table entries point nowhere.
#[derive(Clone, Debug)]
struct Sequences {
    heads: usize,
    kv_heads: usize,
    /// (keys, queries): the last queries of a sequence.
    lengths: Vec<(usize, usize)>,
    seed: u64,
}

struct Paged {
    queries: Vec<Vec<bf16>>,
    keys: Vec<Vec<bf16>>,
    values: Vec<Vec<bf16>>,
}

impl Sequences {
    fn paged(&self) -> Paged {
        let each = |index: usize| ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(index as u64));
        let row = self.kv_heads * D;
        let all = |salt: usize, len: fn(&(usize, usize)) -> usize, row: usize, spread: f32| {
            self.lengths
                .iter()
                .enumerate()
                .map(|(i, lengths)| random(&mut each(4 * i + salt), len(lengths) * row, spread))
                .collect()
        };
        Paged {
            queries: all(0, |l| l.1, self.heads * D, 2.0),
            keys: all(1, |l| l.0, row, 2.0),
            values: all(2, |l| l.0, row, 1.0),
        }
    }

    fn run(&self, kernel: &str, order: Order) -> Vec<Vec<bf16>> {
        let Paged { queries, keys, values } = self.paged();
        let (row, count) = (self.kv_heads * D, self.lengths.len());
        let needed: Vec<usize> = self.lengths.iter().map(|l| l.0.div_ceil(BLOCK)).collect();
        let (width, total) = (needed.iter().copied().max().unwrap_or(0), needed.iter().sum::<usize>() + 1);
        let mut free: Vec<usize> = (0..total).collect();
        free.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed));
        let mut table = vec![1i32 << 28; count * width];
        let mut cache = [vec![bf16::NAN; total * BLOCK * row], vec![bf16::NAN; total * BLOCK * row]];
        for (s, &blocks) in needed.iter().enumerate() {
            for b in 0..blocks {
                table[s * width + b] = free.pop().unwrap() as i32;
            }
            for t in 0..self.lengths[s].0 {
                let at = (table[s * width + t / BLOCK] as usize * BLOCK + t % BLOCK) * row;
                for (cache, source) in cache.iter_mut().zip([&keys[s], &values[s]]) {
                    cache[at..at + row].copy_from_slice(&source[t * row..][..row]);
                }
            }
        }
        let context: Vec<i32> = self.lengths.iter().map(|l| l.0 as i32).collect();
        let mut starts = vec![0i32];
        starts.extend(self.lengths.iter().scan(0, |sum, l| {
            *sum += l.1 as i32;
            Some(*sum)
        }));
        let longest = self.lengths.iter().map(|l| l.1).max().unwrap_or(0) as u32;
        let query = Buffer::of(&queries.concat());
        let (k, v) = (Buffer::of(&cache[0]), Buffer::of(&cache[1]));
        let mut out = Buffer::nan(query.0.len() * 8);
        let (o, q, k, v) = (out.0.as_mut_ptr(), query.0.as_ptr(), k.0.as_ptr(), v.0.as_ptr());
        let (bt, ctx, qs) = (table.as_ptr(), context.as_ptr(), starts.as_ptr());
        let (width, heads, kv_heads) = (width as i32, self.heads as i32, self.kv_heads as i32);
        let scale = 0.125f32 * if kernel == "paged_prefill_d64" { std::f32::consts::LOG2_E } else { 1.0 };
        let mut args = vec![Arg::new(&o), Arg::new(&q), Arg::new(&k), Arg::new(&v), Arg::new(&bt), Arg::new(&ctx)];
        let grid = if kernel == "paged_prefill_d64" {
            args.push(Arg::new(&qs));
            [longest.div_ceil(64), self.heads as u32, count as u32]
        } else {
            [self.heads as u32, count as u32, 1]
        };
        args.extend([Arg::new(&width), Arg::new(&heads), Arg::new(&kv_heads), Arg::new(&scale)]);
        // SAFETY: tables and caches are built to the lengths given.
        unsafe { launch(kernel, grid, [128, 1, 1], 0, &args, order) }.unwrap();
        let out = out.values();
        let bounds = starts.windows(2).map(|w| w[0] as usize * self.heads * D..w[1] as usize * self.heads * D);
        bounds.map(|range| out[range].to_vec()).collect()
    }

    fn worst_error(&self, out: &[Vec<bf16>]) -> f64 {
        let Paged { queries, keys, values } = self.paged();
        let mut worst = 0.0f64;
        for (s, &(len, count)) in self.lengths.iter().enumerate() {
            for (i, h) in (0..count).flat_map(|i| (0..self.heads).map(move |h| (i, h))) {
                let at = |t: usize| (t * self.kv_heads + h / (self.heads / self.kv_heads)) * D;
                let q = &queries[s][(i * self.heads + h) * D..][..D];
                let seen = len - count + i + 1;
                let dot = |t: usize| (0..D).map(|d| q[d].to_f64() * keys[s][at(t) + d].to_f64()).sum::<f64>() * 0.125;
                let scores: Vec<f64> = (0..seen).map(dot).collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..D {
                    let want = (0..seen).map(|t| weights[t] * values[s][at(t) + d].to_f64()).sum::<f64>() / total;
                    let error = (out[s][(i * self.heads + h) * D + d].to_f64() - want).abs();
                    worst = if error <= worst { worst } else { error };
                }
            }
        }
        worst
    }
}

fn bits(rows: &[Vec<bf16>]) -> Vec<Vec<u16>> {
    rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

/// GQA ratios 1 to 16, ragged batches, partial blocks, odd lengths.
fn sequences(decode: bool) -> impl Strategy<Value = Sequences> {
    let lengths = proptest::collection::vec((1usize..90, 0.0..1.0f64), 1..4);
    (0usize..5, lengths, any::<u64>()).prop_map(move |(ratio, lengths, seed)| {
        let (heads, kv_heads) = [(2, 2), (4, 2), (4, 1), (8, 1), (16, 1)][ratio];
        let queries = |len: usize, share: f64| if decode { 1 } else { 1 + (share * (len - 1) as f64) as usize };
        let lengths = lengths.into_iter().map(|(len, share)| (len, queries(len, share))).collect();
        Sequences { heads, kv_heads, lengths, seed }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn rms_norm_matches_float64(rows in 1usize..4, vectors in 1usize..130, warps in 1u32..=32, seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n = vectors * 8;
        let (x, w) = (random(&mut rng, rows * n, 3.0), random(&mut rng, n, 1.2));
        let out = rms_norm(&x, &w, warps * 32, Order::Forward);
        for order in ORDERS {
            prop_assert_eq!(bits(&[rms_norm(&x, &w, warps * 32, order)]), bits(std::slice::from_ref(&out)));
        }
        for (row, out) in x.chunks(n).zip(out.chunks(n)) {
            let alone = rms_norm(row, &w, warps * 32, Order::Forward);
            prop_assert_eq!(bits(&[alone]), bits(&[out.to_vec()]));
            let scale = 1.0 / (row.iter().map(|a| a.to_f64().powi(2)).sum::<f64>() / n as f64 + 1e-5).sqrt();
            for ((x, w), out) in row.iter().zip(&w).zip(out) {
                let want = x.to_f64() * scale * w.to_f64();
                prop_assert!((out.to_f64() - want).abs() < 0.004 * want.abs() + 1e-5, "{} {}", out, want);
            }
        }
    }

    #[test]
    fn prefill_matches_float64_and_ignores_its_company(sequences in sequences(false)) {
        check("paged_prefill_d64", &sequences)?;
    }

    #[test]
    fn decode_matches_float64_and_ignores_its_company(sequences in sequences(true)) {
        check("paged_decode_d64", &sequences)?;
    }
}

fn check(kernel: &str, sequences: &Sequences) -> Result<(), TestCaseError> {
    let out = sequences.run(kernel, Order::Forward);
    let error = sequences.worst_error(&out);
    prop_assert!(error < 0.01, "maximal error {}", error);
    for order in ORDERS {
        prop_assert_eq!(bits(&sequences.run(kernel, order)), bits(&out), "{:?}", order);
    }
    let first = Sequences { lengths: sequences.lengths[..1].to_vec(), ..sequences.clone() };
    prop_assert_eq!(&bits(&first.run(kernel, Order::Forward))[0], &bits(&out)[0]);
    Ok(())
}

#[test]
fn what_does_not_fit_is_an_error() {
    let n = 1i32;
    let run = |kernel: &str, count: usize| {
        let args: Vec<Arg<'_>> = (0..count).map(|_| Arg::new(&n)).collect();
        // SAFETY: the launch is refused before anything is read through the arguments.
        unsafe { launch(kernel, [1; 3], [32, 1, 1], 0, &args, Order::Forward) }
            .map_err(|error: LaunchError| error.to_string())
    };
    assert!(run("rms_norm_bf16", 1).unwrap_err().contains("number of kernel arguments"));
    assert!(run("rms_norm_bf16", 5).unwrap_err().contains("argument 0 has the wrong size"));
    assert!(run("no_such_kernel", 0).unwrap_err().contains("no kernel named no_such_kernel"));
}
