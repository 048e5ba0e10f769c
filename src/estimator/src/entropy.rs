//! The entropy of a text's n-grams by Grassberger's estimator, and its error.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use statrs::function::gamma::digamma;

use crate::Error;

/// The entropy of the n-grams of a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NgramEntropy {
    /// Tokens in an n-gram.
    pub n: usize,
    /// `H_n` in nats.
    pub nats: f64,
    /// Its standard error in nats, as if n-grams were drawn independently.
    pub error: f64,
    /// How many n-grams were counted.
    pub total: u64,
    /// How many different ones.
    pub distinct: u64,
}

impl NgramEntropy {
    /// The entropy of all overlapping n-grams of `texts`; none spans two texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `n` is 0, or no text has `n` tokens.
    pub fn of_texts<'a>(texts: impl IntoIterator<Item = &'a [u32]>, n: usize) -> Result<Self, Error> {
        if n == 0 {
            return Err(Error::invalid("n-gram length", n, "at least 1"));
        }
        let mut counts: HashMap<&[u32], u64> = HashMap::new();
        for ngram in texts.into_iter().flat_map(|text| text.windows(n)) {
            *counts.entry(ngram).or_default() += 1;
        }
        if counts.is_empty() {
            return Err(Error::invalid("n-gram length", n, "at most the length of the longest text"));
        }
        let mut counts: Vec<u64> = counts.into_values().collect();
        // A hash map's order is random; a sum's last bits depend on the order.
        counts.sort_unstable();
        let (nats, error) = entropy(&counts);
        let (total, distinct) = (counts.iter().sum(), counts.len() as u64);
        Ok(Self { n, nats, error, total, distinct })
    }
}

/// Grassberger's entropy of counts, and its standard error, in nats:
/// `H = ln N - (1/N) Σ_i c_i G(c_i)`, error `sqrt(Σ_i (c_i/N) (G(c_i) - ln N)^2 - H^2) / sqrt(N)`.
///
/// Grassberger, *Entropy Estimates from Insufficient Samplings* (2003), equations 27 to 30. Counts are positive, and there
/// is at least one.
fn entropy(counts: &[u64]) -> (f64, f64) {
    let total = counts.iter().sum::<u64>() as f64;
    // Equal counts stand together: one G for all of them.
    let moments = counts.chunk_by(|a, b| a == b).map(|equal| {
        let share = equal.len() as f64 * equal[0] as f64 / total;
        let surprise = total.ln() - g(equal[0]);
        (share * surprise, share * surprise * surprise)
    });
    let (mean, square) = moments.fold((0.0, 0.0), |sum, term| (sum.0 + term.0, sum.1 + term.1));
    (mean, (square - mean * mean).max(0.0).sqrt() / total.sqrt())
}

/// `G(c) = ψ(c) + (-1)^c/2 · (ψ((c+1)/2) - ψ(c/2))`.
fn g(count: u64) -> f64 {
    let c = count as f64;
    let sign = if count.is_multiple_of(2) { 0.5 } else { -0.5 };
    digamma(c) + sign * (digamma((c + 1.0) / 2.0) - digamma(c / 2.0))
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn g_follows_grassberger_s_recursion() {
        // G_1 = -γ - ln 2, G_2 = 2 - γ - ln 2, G_(2n+1) = G_2n, G_(2n+2) = G_2n + 2/(2n+1): his equation 30.
        let euler = 0.577_215_664_901_532_9;
        let mut expected = -euler - LN_2;
        assert!((g(1) - expected).abs() < 1e-9);
        expected += 2.0;
        for n in 1..200_u64 {
            assert!((g(2 * n) - expected).abs() < 1e-9, "{n}");
            assert!((g(2 * n + 1) - expected).abs() < 1e-9, "{n}");
            expected += 2.0 / (2 * n + 1) as f64;
        }
    }

    #[test]
    fn a_known_entropy_is_found_within_its_error() {
        let symbols = 4096;
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // Two draws a symbol: counting frequencies alone would miss the truth by 0.2 nats.
        let text: Vec<u32> = (0..2 * symbols).map(|_| rng.random_range(0..symbols)).collect();
        let entropy = NgramEntropy::of_texts([&text[..]], 1).unwrap();
        let truth = f64::from(symbols).ln();
        assert!((entropy.nats - truth).abs() < 3.0 * entropy.error, "{entropy:?}, truth {truth}");
        assert!(entropy.error < 0.02, "{entropy:?}");
    }

    #[test]
    fn ngrams_overlap_and_stay_within_a_text() {
        let entropy = NgramEntropy::of_texts([&[1, 2, 3][..], &[1, 2], &[9]], 2).unwrap();
        assert_eq!((entropy.total, entropy.distinct), (3, 2));
        assert!(NgramEntropy::of_texts([&[1][..]], 2).is_err());
        assert!(NgramEntropy::of_texts([&[1][..]], 0).is_err());
    }
}
