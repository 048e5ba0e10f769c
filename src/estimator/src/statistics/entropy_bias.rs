//! The bias of an entropy estimate, judged from the counts alone: coverage, the change if the sample is halved, and the
//! spread of the estimators.

use serde::{Deserialize, Serialize};

use crate::statistics::entropy::EntropyMethod;
use crate::statistics::spectrum::Spectrum;

/// The largest count whose thinned distribution is summed exactly.
const EXACT: u64 = 4096;

/// The bias of an entropy estimate, in nats.
///
/// No unbiased estimate of this bias exists (Paninski, *Estimation of Entropy and Mutual Information*, 2003), so there are
/// two, each with an assumption. Let `H(N)` be the estimate from all `N` items, and `H(N/2)` and `H(N/4)` the expected
/// estimates from random halves and quarters of the items.
///
/// - [`halved`](Self::halved) is `H(N/2) - H(N)`: the bias if it falls as `1/N`, as the plug-in estimator's does if most
///   items were seen often (Miller, 1955).
/// - [`extrapolated`](Self::extrapolated) is `-(H(N) - H(N/2)) / (r - 1)` with
///   `r = (H(N/2) - H(N/4)) / (H(N) - H(N/2))`: the bias if it falls as a power of `N` (Aitken's extrapolation). Strong,
///   Koberle, de Ruyter van Steveninck and Bialek (*Entropy and Information in Neural Spike Trains*, 1998) also
///   extrapolate from fractions of the data.
///
/// With many rare items, the bias falls more slowly than `1/N`, but ever faster. The true bias is then between the two,
/// as in the tests with tokens and pairs of tokens from Zipf's law. Without a long tail of rare items, both can be too
/// large. Chao and Shen's estimator does not grow steadily, so for it they are only hints.
///
/// The items are thinned independently of each other, so the bias from having few texts is not included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntropyBias {
    /// The coverage `1 - f/N`, where `f` is the number of items seen once: an estimate of the probability that the next
    /// item was already seen (Good, *The Population Frequencies of Species*, 1953).
    pub coverage: f64,
    /// The bias if it falls as `1/N`.
    pub halved: f64,
    /// The bias if it falls as a power of `N`; `None` if the differences do not shrink as `N` grows, so that the counts
    /// set no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extrapolated: Option<f64>,
    /// The smallest and the largest entropy of the four estimators.
    pub methods: [f64; 2],
}

impl EntropyBias {
    /// Returns the bias of the estimate that `method` returns for `spectrum`, which must not be empty.
    pub fn of(method: EntropyMethod, spectrum: &Spectrum) -> Self {
        let [whole, half, quarter] = [1.0, 0.5, 0.25].map(|share| thinned(method, spectrum, share));
        let ratio = (half - quarter) / (whole - half);
        let extrapolated = (ratio > 1.0).then(|| -(whole - half) / (ratio - 1.0));
        let values = EntropyMethod::ALL.map(|method| method.of(spectrum).value);
        Self {
            coverage: 1.0 - spectrum.once() as f64 / spectrum.total() as f64,
            halved: half - whole,
            extrapolated: extrapolated.filter(|bias| bias.is_finite()),
            methods: [values.iter().copied().fold(f64::INFINITY, f64::min), values.into_iter().fold(0.0, f64::max)],
        }
    }

    /// Multiplies all entropies by a factor, to convert their unit.
    pub(crate) fn scale(&mut self, factor: f64) {
        for value in [&mut self.halved].into_iter().chain(&mut self.extrapolated).chain(&mut self.methods) {
            *value *= factor;
        }
    }
}

/// Returns the expected estimate if each item is kept with probability `share`, for the expected numbers of kept items,
/// distinct items and items seen once.
fn thinned(method: EntropyMethod, spectrum: &Spectrum, share: f64) -> f64 {
    if share >= 1.0 {
        return method.of(spectrum).value;
    }
    let total = spectrum.total() as f64 * share;
    let (mut distinct, mut once) = (0.0, 0.0);
    for (count, things) in spectrum.iter() {
        let (count, things) = (count as f64, things as f64);
        distinct += things * -(count * (-share).ln_1p()).exp_m1();
        once += things * count * share * ((count - 1.0) * (-share).ln_1p()).exp();
    }
    let coverage = 1.0 - once.min((total - 1.0).max(0.0)) / total;
    let term = |count: u64| if count == 0 { 0.0 } else { count as f64 * method.surprise(count, total, coverage) };
    let terms: Vec<f64> = (0..=EXACT).map(term).collect();
    let mut sum = 0.0;
    for (count, things) in spectrum.iter() {
        let expected = if count <= EXACT {
            binomial_mean(count, share, &terms)
        } else {
            let (mean, deviation) = (count as f64 * share, (count as f64 * share * (1.0 - share)).sqrt());
            f64::midpoint(smooth(mean - deviation, term), smooth(mean + deviation, term))
        };
        sum += things as f64 * expected;
    }
    sum / total + method.constant(distinct, total)
}

/// Returns the mean of `terms[k]` for `k` from the binomial distribution of `count` trials with probability `share`.
/// Sums outwards from the mode, up to 12 standard deviations and at least 40 terms away from it.
fn binomial_mean(count: u64, share: f64, terms: &[f64]) -> f64 {
    let (n, odds) = (count as f64, share / (1.0 - share));
    let mode = ((n + 1.0) * share).floor().min(n) as u64;
    let width = (12.0 * (n * share * (1.0 - share)).sqrt()) as u64 + 40;
    // Weights relative to the mode's; their sum normalizes them.
    let (mut weights, mut sum) = (1.0, terms[mode as usize]);
    let mut weight = 1.0;
    for k in mode + 1..=count.min(mode + width) {
        weight *= (n - k as f64 + 1.0) / k as f64 * odds;
        weights += weight;
        sum += weight * terms[k as usize];
    }
    weight = 1.0;
    for k in (mode.saturating_sub(width)..mode).rev() {
        weight *= (k as f64 + 1.0) / (n - k as f64) / odds;
        weights += weight;
        sum += weight * terms[k as usize];
    }
    sum / weights
}

/// Returns `term` at a large real number, smoothed over the neighboring integers: Grassberger's `G` differs between even
/// and odd counts. It is exact if the mean of two neighbors is a linear function.
fn smooth(at: f64, term: impl Fn(u64) -> f64) -> f64 {
    let low = (at - 0.5).floor();
    let [a, b, c] = [0, 1, 2].map(|step| term(low as u64 + step));
    let part = at - 0.5 - low;
    f64::midpoint(a, b) * (1.0 - part) + f64::midpoint(b, c) * part
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Draws `total` items with probabilities proportional to `1 / rank^exponent`; returns them and the true entropy.
    fn zipf(types: u32, exponent: f64, total: usize) -> (Vec<u32>, f64) {
        let weights: Vec<f64> = (1..=types).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let sum: f64 = weights.iter().sum();
        let mut cumulative: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let truth = cumulative.iter().map(|p| -p * p.ln()).sum();
        for index in 1..cumulative.len() {
            cumulative[index] += cumulative[index - 1];
        }
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let draw = |_| {
            let at: f64 = rng.random();
            cumulative.partition_point(|&p| p < at).min(types as usize - 1) as u32
        };
        ((0..total).map(draw).collect(), truth)
    }

    /// Covers tokens and pairs of independent tokens, whose entropy is twice as large.
    #[test]
    fn the_true_bias_is_between_the_two_for_zipfs_law() {
        for (types, exponent, total) in [(100_000, 1.0, 30_000), (20_000, 1.1, 60_000), (1000, 1.2, 2000)] {
            let (tokens, truth) = zipf(types, exponent, total);
            let mut pairs = std::collections::HashMap::new();
            tokens.windows(2).for_each(|pair| *pairs.entry((pair[0], pair[1])).or_insert(0_u64) += 1);
            let mut counts = vec![0; types as usize];
            tokens.iter().for_each(|&token| counts[token as usize] += 1);
            for (spectrum, truth) in [
                (counts.into_iter().collect::<Spectrum>(), truth),
                (pairs.into_values().collect::<Spectrum>(), 2.0 * truth),
            ] {
                for method in [EntropyMethod::PlugIn, EntropyMethod::MillerMadow, EntropyMethod::Grassberger] {
                    let estimate = method.of(&spectrum);
                    let (bias, truth, slack) =
                        (EntropyBias::of(method, &spectrum), estimate.value - truth, 3.0 * estimate.error);
                    assert!(truth < bias.halved + slack, "{types} {method:?}: {truth} {bias:?}");
                    let limit = bias.extrapolated.unwrap_or(f64::NEG_INFINITY);
                    assert!(truth > limit - slack, "{types} {method:?}: {truth} {bias:?}");
                }
            }
        }
    }

    #[test]
    fn a_well_sampled_law_has_little_bias() {
        let mut counts = vec![0; 100];
        zipf(100, 1.0, 100_000).0.into_iter().for_each(|token| counts[token as usize] += 1);
        let spectrum: Spectrum = counts.into_iter().collect();
        let bias = EntropyBias::of(EntropyMethod::Grassberger, &spectrum);
        assert!(bias.halved.abs() < 2e-4 && bias.coverage > 0.9999, "{bias:?}");
        let bias = EntropyBias::of(EntropyMethod::PlugIn, &spectrum);
        assert!((bias.halved / (-99.0 / 2e5) - 1.0).abs() < 0.02, "the bias is that of Miller: {bias:?}");
        assert!((bias.extrapolated.unwrap() / bias.halved - 1.0).abs() < 0.05, "{bias:?}");
    }

    /// Covers counts whose distribution is summed exactly, and larger ones.
    #[test]
    fn thinning_is_the_mean_over_random_halves() {
        let counts = [1_u64, 1, 1, 2, 3, 7, 20, 400, 5001, 9000];
        let spectrum: Spectrum = counts.into_iter().collect();
        let total = spectrum.total() as f64 / 2.0;
        let once: f64 = counts.iter().map(|&count| count as f64 * 0.5_f64.powf(count as f64)).sum();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for method in [EntropyMethod::PlugIn, EntropyMethod::Grassberger, EntropyMethod::ChaoShen] {
            let mut sum = 0.0;
            for count in counts.repeat(300) {
                let kept = (0..count).filter(|_| rng.random_bool(0.5)).count() as u64;
                if kept > 0 {
                    sum += kept as f64 * method.surprise(kept, total, 1.0 - once / total);
                }
            }
            let (mean, expected) = (sum / total / 300.0, thinned(method, &spectrum, 0.5));
            assert!((mean - expected).abs() < 1e-3, "{method:?}: {mean} {expected}");
        }
    }

    #[test]
    fn items_that_were_all_seen_once_set_no_limit() {
        let spectrum: Spectrum = std::iter::repeat_n(1, 50).collect();
        let bias = EntropyBias::of(EntropyMethod::PlugIn, &spectrum);
        assert!((bias.halved + std::f64::consts::LN_2).abs() < 1e-12 && bias.extrapolated.is_none(), "{bias:?}");
        assert!(bias.coverage.abs() < 1e-12);
        let one: Spectrum = [1].into_iter().collect();
        assert!(EntropyMethod::ALL.iter().all(|&method| EntropyBias::of(method, &one).halved.is_finite()));
    }
}
