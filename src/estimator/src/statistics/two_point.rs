//! Two-point mutual information: between two tokens at a given distance, estimated from counts without a model.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::fit::Fit;
use crate::progress_log::{LOG_TARGET, LogClock};
use crate::statistics::count::{COUNT_MEMORY_BYTES, count_pairs, count_tokens};
use crate::statistics::entropy::EntropyMethod;
use crate::statistics::entropy_bias::EntropyBias;
use crate::statistics::shuffle::{SHUFFLE_MEMORY_BYTES, shuffle_tokens};
use crate::statistics::spectrum::Spectrum;
use crate::statistics::token_store::TokenTexts;
use crate::value::Estimate;

/// The two-point mutual information of a text at several distances, in nats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoPoint {
    /// Estimator of the entropies.
    pub method: EntropyMethod,
    /// `H_1`, the entropy of the tokens.
    pub entropy: Estimate,
    /// One estimate for each distance, in the requested order.
    pub points: Vec<TwoPointEstimate>,
    /// Power law fitted by least squares of `ln I` on `ln d`; `None` if there are too few positive points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// Power law with a bias, `A d^β + c` with `0 <= c < min I`, by least squares of the relative error
    /// ([`Fit::additive`]); `None` if there are too few positive points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additive: Option<Fit>,
    /// Power law with a bias by the L2M paper's loss ([`Fit::paper`]); `None` if there are too few positive points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper: Option<Fit>,
    /// Power law fitted by least squares of `ln D` on `ln d`, where `D` is the difference from the shuffled baseline.
    /// It omits distances at which `D` is less than three of its standard errors, and lists them in `left_out`. `None`
    /// without a baseline, or if fewer than two distances remain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference_fit: Option<Fit>,
    /// The number of shuffles behind the baseline; 0 without a baseline.
    #[serde(default)]
    pub shuffles: usize,
    /// The bias of `entropy`; `None` in reports of versions that did not compute it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<EntropyBias>,
}

/// The two-point mutual information at one distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoPointEstimate {
    /// `d`: the distance in tokens, 1 for neighbors.
    pub distance: usize,
    /// Number of pairs counted.
    pub pairs: u64,
    /// `I(d) = 2 H_1 - H_d`, where `H_d` is the entropy of the pairs. The standard error is `sqrt(4 σ_1² + σ_d²)`,
    /// which treats tokens and pairs as independent.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// The bias of `H_d`; `None` in reports of versions that did not compute it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<EntropyBias>,
    /// The estimate from shuffled tokens; `None` if it was not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
}

/// Two-point information of the same tokens in a random order, in texts of the same lengths, in nats. Its true value is
/// 0 (apart from about `1/N` for drawing without replacement), so an estimate from shuffled tokens is bias.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Mean over the shuffles.
    pub value: f64,
    /// Standard error of the mean.
    pub error: f64,
    /// Sample standard deviation over the shuffles: the scatter of the estimate around `value` if the order of the
    /// tokens carries no information.
    pub spread: f64,
    /// The estimate minus `value`. `H_1` cancels, so its standard error is `sqrt(max(σ_d, spread)² + error²)`, which
    /// treats pairs as independent.
    pub difference: Estimate,
}

impl Baseline {
    /// Creates a baseline from the estimates of at least two shuffles, an estimate, and the standard error of its `H_d`.
    fn new(shuffles: &[f64], estimate: f64, joint_error: f64) -> Self {
        let Estimate { value, error, .. } = Estimate::of(shuffles);
        let spread = error * (shuffles.len() as f64).sqrt();
        let difference = Estimate::new(estimate - value, joint_error.max(spread).hypot(error));
        Self { value, error, spread, difference }
    }
}

impl TwoPoint {
    /// Returns the two-point mutual information of texts in memory; see [`of`](Self::of).
    ///
    /// # Errors
    /// The errors of [`of`](Self::of).
    pub fn of_texts<'a>(
        texts: impl IntoIterator<Item = &'a [u32]>,
        distances: &[usize],
        method: EntropyMethod,
    ) -> Result<Self, Error> {
        Self::of(&texts.into_iter().collect::<Vec<_>>(), distances, method)
    }

    /// Returns the two-point mutual information of `texts`, from all pairs within a text; no pair spans two texts.
    ///
    /// Counting takes about 2 GiB of memory at most, however large the vocabulary and the texts are.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are no distances, or if one is 0 or not less than the length of the longest text;
    /// [`Error::Spill`] if the texts cannot be read.
    pub fn of(texts: &impl TokenTexts, distances: &[usize], method: EntropyMethod) -> Result<Self, Error> {
        let mut longest = 0;
        texts.for_each(&mut |text| longest = longest.max(text.len()))?;
        if let Some(distance) = distances.iter().find(|&&distance| distance == 0 || distance >= longest) {
            let limit = format!("at least 1 and less than {longest}, the length of the longest text");
            return Err(Error::invalid("distance", distance, limit));
        }
        if distances.is_empty() {
            return Err(Error::invalid("distances", "empty", "a list of at least one distance"));
        }
        let tokens = count_tokens(texts, COUNT_MEMORY_BYTES)?;
        let entropy = method.of(&tokens);
        let point = |(&distance, spectrum): (&usize, &Spectrum)| {
            let joint = method.of(spectrum);
            let estimate = Estimate::new(2.0 * entropy.value - joint.value, (2.0 * entropy.error).hypot(joint.error));
            let bias = Some(EntropyBias::of(method, spectrum));
            TwoPointEstimate { distance, pairs: spectrum.total(), estimate, bias, baseline: None }
        };
        let spectra = count_pairs(texts, distances, COUNT_MEMORY_BYTES)?;
        let points: Vec<TwoPointEstimate> = distances.iter().zip(&spectra).map(point).collect();
        let values: Vec<_> = points.iter().map(|point| (point.distance as f64, point.estimate.value)).collect();
        Ok(Self {
            method,
            entropy,
            fit: Fit::of(&values),
            additive: Fit::additive(&values, 0.0),
            paper: Fit::paper(&values),
            difference_fit: None,
            shuffles: 0,
            bias: Some(EntropyBias::of(method, &tokens)),
            points,
        })
    }

    /// Adds the baseline from this number of shuffles of `texts`, which must be the texts of the estimates, and fits a
    /// power law to the differences. 0 adds nothing.
    ///
    /// Each shuffle takes as long as the estimates, and about 1 GiB more memory, however large the texts are. The seed
    /// determines the shuffles.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is only one shuffle, which has no standard error; [`Error::Spill`] if the texts
    /// cannot be read, or the shuffled texts cannot be saved.
    pub fn with_baseline(mut self, texts: &impl TokenTexts, shuffles: usize, seed: u64) -> Result<Self, Error> {
        if shuffles == 1 {
            return Err(Error::invalid("number of shuffles", shuffles, "0, or at least 2"));
        }
        let distances: Vec<usize> = self.points.iter().map(|point| point.distance).collect();
        let mut values = vec![Vec::with_capacity(shuffles); distances.len()];
        let mut clock = LogClock::start();
        // Neighboring seeds have no shuffles in common.
        let mut seeds = ChaCha8Rng::seed_from_u64(seed);
        for shuffle in 0..shuffles {
            let permuted = shuffle_tokens(texts, seeds.random(), SHUFFLE_MEMORY_BYTES)?;
            let spectra = count_pairs(&permuted, &distances, COUNT_MEMORY_BYTES)?;
            for (values, spectrum) in values.iter_mut().zip(&spectra) {
                values.push(2.0 * self.entropy.value - self.method.of(spectrum).value);
            }
            if clock.is_due() {
                tracing::info!(target: LOG_TARGET, shuffle = shuffle + 1, of = shuffles, "counting shuffled pairs");
            }
        }
        if shuffles > 0 {
            for (point, values) in self.points.iter_mut().zip(&values) {
                let Estimate { value, error, .. } = point.estimate;
                let joint_error = (error * error - 4.0 * self.entropy.error.powi(2)).max(0.0).sqrt();
                point.baseline = Some(Baseline::new(values, value, joint_error));
            }
            self.difference_fit = fit_differences(&self.points);
        }
        self.shuffles = shuffles;
        Ok(self)
    }
}

/// Fits a power law to the differences that are at least three of their standard errors.
fn fit_differences(points: &[TwoPointEstimate]) -> Option<Fit> {
    let (mut clear, mut omitted) = (Vec::new(), Vec::new());
    for TwoPointEstimate { distance, baseline, .. } in points {
        let (distance, difference) = (*distance as f64, baseline.as_ref()?.difference);
        if difference.value >= 3.0 * difference.error {
            clear.push((distance, difference.value));
        } else {
            omitted.push(distance);
        }
    }
    Some(Fit { left_out: omitted, ..Fit::of(&clear)? })
}

#[cfg(test)]
mod tests {
    use statrs::function::factorial::ln_binomial;

    use super::*;
    use crate::process::SantaFe;

    #[test]
    fn the_two_point_information_of_the_process_is_found() {
        let process = SantaFe::new(12, 1.2, 1e-3).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let texts: Vec<Vec<u32>> = (0..40_000).map(|_| process.sample(12, &mut rng)).collect();
        for method in EntropyMethod::ALL {
            let two_point = TwoPoint::of_texts(texts.iter().map(Vec::as_slice), &[1, 3, 11], method).unwrap();
            for point in &two_point.points {
                assert_eq!(point.pairs, 40_000 * (12 - point.distance as u64));
                let off = (point.estimate.value - process.two_point()) / point.estimate.error;
                assert!(off.abs() < 3.0, "{method:?} {point:?}, truth {}", process.two_point());
            }
        }
    }

    /// Draws tokens by Zipf's law, each the successor of the token before it with probability `follow`.
    fn zipf(tokens: usize, types: u32, follow: f64, seed: u64) -> Vec<u32> {
        let mut cumulative = vec![0.0];
        for rank in 1..=types {
            cumulative.push(cumulative[rank as usize - 1] + 1.0 / f64::from(rank));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = Vec::with_capacity(tokens);
        for index in 0..tokens {
            let at = rng.random::<f64>() * cumulative[types as usize];
            let fresh = cumulative.partition_point(|&below| below < at) as u32;
            text.push(if index > 0 && rng.random_bool(follow) { (text[index - 1] + 1) % types } else { fresh });
        }
        text
    }

    /// The bias of independent tokens is far above 0, and the baseline removes it. The scatter of the shuffles is that
    /// of the estimate.
    #[test]
    fn independent_tokens_are_within_three_errors_of_the_baseline() {
        let text = zipf(60_000, 20_000, 0.0, 4);
        let texts: Vec<&[u32]> = text.chunks(5000).collect();
        let distances = [1, 2, 4, 8, 16, 64, 256, 1024, 4096];
        for method in EntropyMethod::ALL {
            let two_point = TwoPoint::of(&texts, &distances, method).unwrap().with_baseline(&texts, 15, 1).unwrap();
            for point in &two_point.points {
                let Baseline { spread, difference, error, .. } = point.baseline.unwrap();
                assert!(point.estimate.value > 0.8, "{method:?} {point:?}");
                assert!(difference.value.abs() < 3.0 * spread.hypot(error), "{method:?} {point:?}");
                assert!(difference.value.abs() < 3.0 * difference.error, "{method:?} {point:?}");
            }
            assert!(two_point.difference_fit.is_none() && two_point.shuffles == 15);
        }
    }

    #[test]
    fn dependent_tokens_differ_from_the_baseline_where_they_depend() {
        let text = zipf(60_000, 2000, 0.5, 5);
        let texts = vec![&text[..]];
        let two_point = TwoPoint::of(&texts, &[1, 2, 3, 40], EntropyMethod::Grassberger).unwrap();
        let two_point = two_point.with_baseline(&texts, 5, 1).unwrap();
        let differences: Vec<Estimate> =
            two_point.points.iter().map(|point| point.baseline.unwrap().difference).collect();
        assert!(differences[..3].is_sorted_by(|a, b| a.value > b.value), "{differences:?}");
        assert!(
            differences[..3].iter().all(|difference| difference.value > 10.0 * difference.error),
            "{differences:?}"
        );
        assert!(differences[3].value.abs() < 3.0 * differences[3].error, "{differences:?}");
        let fit = two_point.difference_fit.unwrap();
        assert!(fit.left_out == [40.0] && fit.exponent < 0.0, "{fit:?}");
    }

    /// In a random order, the count of a pair of types with `a` and `b` of the `N` tokens has nearly a hypergeometric
    /// distribution, so the mean joint entropy has a closed form.
    #[test]
    fn the_baseline_is_the_expectation_over_random_orders() {
        let text = zipf(4000, 300, 0.3, 6);
        let texts = vec![&text[..]];
        let two_point = TwoPoint::of(&texts, &[1], EntropyMethod::PlugIn).unwrap();
        let two_point = two_point.with_baseline(&texts, 40, 2).unwrap();
        let mut counts = vec![0; 301];
        text.iter().for_each(|&token| counts[token as usize] += 1);
        let (total, mut joint) = (text.len() as u64, 0.0);
        for &a in &counts {
            for &b in &counts {
                for count in 1..=a.min(b) {
                    let probability = ln_binomial(a, count) + ln_binomial(total - a, b - count) - ln_binomial(total, b);
                    let share = count as f64 / total as f64;
                    joint -= probability.exp() * share * share.ln();
                }
            }
        }
        let found = two_point.points[0].baseline.unwrap();
        let expected = 2.0 * two_point.entropy.value - joint;
        assert!((found.value - expected).abs() < 0.003 * expected, "{found:?} {expected}");
    }

    #[test]
    fn one_shuffle_has_no_error() {
        let texts = vec![&[1, 2, 3][..]];
        let two_point = TwoPoint::of(&texts, &[1], EntropyMethod::PlugIn).unwrap();
        assert_eq!(two_point.clone().with_baseline(&texts, 0, 1).unwrap(), two_point);
        let error = two_point.with_baseline(&texts, 1, 1).unwrap_err().to_string();
        assert!(error.contains("number of shuffles is 1; it must be 0, or at least 2"), "{error}");
    }

    #[test]
    fn errors_name_the_invalid_distances() {
        let text = [1, 2, 3];
        for distances in [&[0][..], &[3], &[]] {
            let error = TwoPoint::of_texts([&text[..]], distances, EntropyMethod::PlugIn).unwrap_err().to_string();
            assert!(error.starts_with("distance"), "{error}");
        }
    }
}
