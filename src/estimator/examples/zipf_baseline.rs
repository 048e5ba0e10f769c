//! Two-point information of independent tokens, whose true value is 0, beside its shuffled baseline.
//!
//! `cargo run --release -p surprisal-estimator --example zipf_baseline [TOKENS] [TYPES] [SHUFFLES] [SEED]` draws tokens
//! by Zipf's law with exponent 1, in texts of 10,000 tokens. By default, there are 2.7 million tokens of 128,256 types,
//! as many as Llama 3's vocabulary has.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{EntropyMethod, Error, TokenStore, TwoPoint};

/// The number of tokens in a text.
const TEXT: usize = 10_000;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().ok());
    let mut argument = |default: usize| arguments.next().flatten().unwrap_or(default);
    let (tokens, types, shuffles, seed) = (argument(2_700_000), argument(128_256), argument(20), argument(1));
    let mut cumulative: Vec<f64> = Vec::with_capacity(types);
    for rank in 1..=types {
        cumulative.push(cumulative.last().unwrap_or(&0.0) + 1.0 / rank as f64);
    }
    let sum = cumulative.last().copied().unwrap_or(1.0);
    let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
    let mut texts = TokenStore::default();
    for start in (0..tokens).step_by(TEXT) {
        let mut draw = |_| {
            let at: f64 = rng.random::<f64>() * sum;
            cumulative.partition_point(|&below| below < at) as u32
        };
        texts.push(&(start..tokens.min(start + TEXT)).map(&mut draw).collect::<Vec<_>>())?;
    }
    let distances: Vec<usize> = (0..=12).map(|power| 1 << power).collect();
    let two_point = TwoPoint::of(&texts, &distances, EntropyMethod::Grassberger)?;
    let two_point = two_point.with_baseline(&texts, shuffles, seed as u64)?;
    println!("{tokens} tokens, {types} types, {shuffles} shuffles; H_1 = {}", two_point.entropy);
    println!("z is the difference in units of the report's error, and z' in units of the spread over shuffles.");
    let heads = ["d", "I(d)", "baseline", "difference", "error", "spread", "z", "z'"];
    println!("{}", heads.map(|head| format!("{head:>11}")).concat());
    for point in &two_point.points {
        let Some(baseline) = point.baseline else { continue };
        // The error of a difference between one value and the mean of others with the same distribution.
        let error = baseline.spread * (1.0 + 1.0 / shuffles as f64).sqrt();
        let difference = baseline.difference;
        let (z, z_of_spread) = (difference.value / difference.error, difference.value / error);
        let numbers = [point.estimate.value, baseline.value, difference.value, difference.error, baseline.spread];
        let numbers = numbers.map(|number| format!("{number:>11.6}")).concat();
        println!("{:>11}{numbers}{z:>11.2}{z_of_spread:>11.2}", point.distance);
    }
    Ok(())
}
