//! How fast pairs of tokens are counted at many distances, and in how much memory:
//! `cargo run --release -p surprisal-bench --bin count_pairs -- [TOKENS] [DISTANCES]`
//!
//! 71.5 million tokens make 1e9 pairs over 14 distances; 1e9 tokens nearly so many at each of them, and go to a temporary file.

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{EntropyMethod, TokenStore, TwoPoint};

/// Token ids, of a vocabulary like Llama 3's.
const VOCABULARY: f64 = 128_256.0;

/// Tokens of a text.
const TEXT: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut given = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let tokens = given.next().transpose()?.unwrap_or(71_500_000);
    let distances: Vec<usize> = (0..given.next().transpose()?.unwrap_or(14)).map(|power| 1 << power).collect();
    // Frequencies like those of words: the density of ids falls as one over the id.
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
        "{pairs} pairs at {} distances in {seconds:.1} s: {:.1} million a second",
        distances.len(),
        pairs as f64 / seconds / 1e6
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or(" unknown");
    println!("peak memory {}; the texts have {} MB", peak.trim(), tokens * 4 / 1_000_000);
    let largest = two_point.points.iter().map(|point| point.estimate.value.abs()).fold(0.0, f64::max);
    println!("tokens are independent; the largest of the estimates is {largest:.4} nats");
    Ok(())
}
