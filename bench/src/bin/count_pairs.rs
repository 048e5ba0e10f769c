//! Measures the speed and peak memory of counting pairs of tokens at many distances:
//! `cargo run --release -p surprisal-bench --bin count_pairs -- [TOKENS] [DISTANCES]`
//!
//! 71.5 million tokens make 1e9 pairs in total over 14 distances. 1e9 tokens make nearly 1e9 pairs at each distance,
//! and are stored in a temporary file.

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{EntropyMethod, TokenStore, TwoPoint};

/// Size of Llama 3's vocabulary.
const VOCABULARY: f64 = 128_256.0;

/// Tokens per text.
const TEXT: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut given = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let tokens = given.next().transpose()?.unwrap_or(71_500_000);
    let distances: Vec<usize> = (0..given.next().transpose()?.unwrap_or(14)).map(|power| 1 << power).collect();
    // Frequencies like those of words: the density of ids is proportional to 1 / id.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut texts = TokenStore::default();
    for start in (0..tokens).step_by(TEXT) {
        let length = TEXT.min(tokens - start);
        let text: Vec<u32> = (0..length).map(|_| VOCABULARY.powf(rng.random::<f64>()) as u32).collect();
        texts.push(&text)?;
    }
    let begun = Instant::now();
    let two_point = TwoPoint::of(&texts, &distances, EntropyMethod::Grassberger)?;
    let seconds = begun.elapsed().as_secs_f64();
    let pairs: u64 = two_point.points.iter().map(|point| point.pairs).sum();
    println!(
        "{pairs} pairs at {} distances in {seconds:.1} s: {:.1} million per second",
        distances.len(),
        pairs as f64 / seconds / 1e6
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or(" unknown");
    println!("peak memory {}; the texts take {} MB", peak.trim(), tokens * 4 / 1_000_000);
    let largest = two_point.points.iter().map(|point| point.estimate.value.abs()).fold(0.0, f64::max);
    println!("the tokens are independent, so estimates should be near 0; the largest is {largest:.4} nats");
    Ok(())
}
