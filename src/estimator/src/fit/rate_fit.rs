//! Fits of laws of surprisal by position to means over ranges of positions, with their covariance.

use crate::fit::rate_law::RateLaw;
use crate::fit::search::golden_section;
use crate::fit::separable::{CovariedMeans, FitTest};
use crate::fit::whitening::dot;

/// The bounds of the exponent `β`. Near 1, a law cannot be told from one that falls without a limit.
pub(crate) const RATE_EXPONENTS: [f64; 2] = [-2.0, 0.98];

/// The number of exponents at which the fit is computed first.
const GRID: usize = 31;

/// The number of golden-section steps, which determine the exponent to 10⁻⁷.
const STEPS: usize = 32;

/// Nodes and weights of Gauss-Legendre quadrature on [-1, 1].
const NODES: [(f64, f64); 5] = [
    (-0.906_179_845_938_664, 0.236_926_885_056_189_1),
    (-0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
    (0.0, 0.568_888_888_888_888_9),
    (0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
    (0.906_179_845_938_664, 0.236_926_885_056_189_1),
];

/// A fitted law.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RateSolution {
    /// The entropy rate `h`, at least 0.
    pub(crate) rate: f64,
    /// The amplitude `A`, at least 0.
    pub(crate) amplitude: f64,
    /// The exponent `β`, within [`RATE_EXPONENTS`].
    pub(crate) exponent: f64,
    /// `T²`, the minimum.
    pub(crate) chi2: f64,
    /// `true` if a parameter is at a bound.
    pub(crate) is_at_bound: bool,
}

/// One law, ready to be fitted to means over ranges of positions.
///
/// A law's mean over the positions from `a` to `b` is its integral from `a - ½` to `b + ½`, divided by the number of
/// positions. The stretched exponential is fitted to the logarithms of the means, whose covariance follows by the delta
/// method; its logarithm is averaged over the positions.
pub(crate) struct RateFitter {
    law: RateLaw,
    /// For each range, the logarithms of positions within it, and their weights.
    nodes: Vec<[(f64, f64); 5]>,
    /// The logarithm of the first position, which scales the amplitude.
    origin: f64,
    /// Exponents, and the means of the decaying function for each.
    grid: Vec<(f64, Vec<f64>)>,
}

impl RateFitter {
    /// Creates the fitter of a law. `ranges` has the first and the last position of each mean.
    pub(crate) fn new(law: RateLaw, ranges: &[(usize, usize)]) -> Self {
        let nodes: Vec<_> = ranges.iter().map(|&range| nodes(range)).collect();
        let origin = nodes.first().map_or(0.0, |nodes| nodes[2].0);
        let mut fitter = Self { law, nodes, origin, grid: Vec::new() };
        let [low, high] = RATE_EXPONENTS;
        if law == RateLaw::Constant {
            fitter.grid.push((0.0, vec![0.0; ranges.len()]));
            return fitter;
        }
        for step in 0..GRID {
            let exponent = low + (high - low) * step as f64 / (GRID - 1) as f64;
            fitter.grid.push((exponent, fitter.decay(exponent)));
        }
        fitter
    }

    /// Fits the law to means, and tests it. `covariance` is that of the means, with `freedom` degrees of freedom. `None`
    /// if it is singular, if a mean without a logarithm needs one, or if there are too few means for a test.
    pub(crate) fn fit(
        &self,
        means: &[f64],
        covariance: &[Vec<f64>],
        freedom: usize,
    ) -> Option<(RateSolution, FitTest)> {
        let means = self.transformed(means, covariance, freedom)?;
        let solution = self.solve(&means)?;
        Some((solution, means.test(self.law.parameters(), solution.chi2)?))
    }

    /// Fits the law without a test, for example to the means of a resample. `None` if the covariance is singular, or if a mean
    /// without a logarithm needs one.
    pub(crate) fn fit_resample(&self, means: &[f64], covariance: &[Vec<f64>]) -> Option<RateSolution> {
        self.solve(&self.transformed(means, covariance, 0)?)
    }

    /// Returns the values that the law is fitted to, with their covariance.
    fn transformed(&self, means: &[f64], covariance: &[Vec<f64>], freedom: usize) -> Option<CovariedMeans> {
        if self.law != RateLaw::Stretched {
            return CovariedMeans::new(means, covariance, freedom);
        }
        let logs: Vec<f64> = means.iter().map(|mean| mean.ln()).collect();
        let entry = |(i, row): (usize, &Vec<f64>)| -> Vec<f64> {
            row.iter().zip(means).map(|(value, mean)| value / (mean * means[i])).collect()
        };
        let relative: Vec<Vec<f64>> = covariance.iter().enumerate().map(entry).collect();
        CovariedMeans::new(&logs, &relative, freedom).filter(|_| logs.iter().all(|log| log.is_finite()))
    }

    /// Fits the law. Searches the exponent on a grid, and then by golden-section search between the neighbors of the best
    /// grid point.
    fn solve(&self, means: &CovariedMeans) -> Option<RateSolution> {
        let ones = means.whiten(&vec![1.0; self.nodes.len()]);
        let at = |exponent: f64, decay: &[f64]| {
            let (chi2, level, scaled) = self.combination(&means.whiten(decay), &ones, means.whitened());
            (chi2, level, scaled, exponent)
        };
        let (mut best, mut nearest) = ((f64::INFINITY, 0.0, 0.0, 0.0), 0);
        for (index, (exponent, decay)) in self.grid.iter().enumerate() {
            let found = at(*exponent, decay);
            if found.0 < best.0 {
                (best, nearest) = (found, index);
            }
        }
        if self.grid.len() > 1 {
            let [low, high] =
                [nearest.saturating_sub(1), (nearest + 1).min(GRID - 1)].map(|index: usize| self.grid[index].0);
            let exponent = golden_section(|exponent| at(exponent, &self.decay(exponent)).0, low, high, STEPS);
            let found = at(exponent, &self.decay(exponent));
            if found.0 < best.0 {
                best = found;
            }
        }
        let (chi2, level, scaled, exponent) = best;
        let rate = if self.law == RateLaw::Stretched { level.exp() } else { level };
        let amplitude = scaled * ((1.0 - exponent) * self.origin).exp();
        let is_decay = self.law != RateLaw::Constant;
        let is_at_bound = rate <= 0.0 || (is_decay && (amplitude <= 0.0 || is_at_exponent_bound(exponent)));
        let is_finite = [chi2, rate, amplitude].iter().all(|value| value.is_finite());
        is_finite.then_some(RateSolution { rate, amplitude, exponent, chi2, is_at_bound })
    }

    /// Returns the smallest `T²` of `level + amplitude · decay`, and these two. The amplitude is not negative, and
    /// neither is the level, unless it is a logarithm. All values are whitened.
    fn combination(&self, decay: &[f64], ones: &[f64], means: &[f64]) -> (f64, f64, f64) {
        let (aa, ab, bb) = (dot(decay, decay), dot(decay, ones), dot(ones, ones));
        let (am, bm) = (dot(decay, means), dot(ones, means));
        let determinant = aa * bb - ab * ab;
        let amplitude = (bb * am - ab * bm) / determinant;
        let level = (aa * bm - ab * am) / determinant;
        let is_signed = self.law == RateLaw::Stretched;
        let at = |level: f64, amplitude: f64| {
            let fitted = decay.iter().zip(ones).map(|(decay, one)| level * one + amplitude * decay);
            (means.iter().zip(fitted).map(|(mean, fitted)| (mean - fitted).powi(2)).sum::<f64>(), level, amplitude)
        };
        if amplitude >= 0.0 && (is_signed || level >= 0.0) {
            return at(level, amplitude);
        }
        let constant = at(if is_signed { bm / bb } else { (bm / bb).max(0.0) }, 0.0);
        let pure = (!is_signed && aa > 0.0).then(|| at(0.0, (am / aa).max(0.0)));
        pure.filter(|pure| pure.0 < constant.0).unwrap_or(constant)
    }

    /// Returns the means of the decaying function over the ranges, relative to a power at the origin.
    fn decay(&self, exponent: f64) -> Vec<f64> {
        let has_logarithm = self.law == RateLaw::PowerLog;
        let value = |&(log, weight): &(f64, f64)| {
            let power = ((exponent - 1.0) * (log - self.origin)).exp();
            weight * if has_logarithm { power * log } else { power }
        };
        self.nodes.iter().map(|nodes| nodes.iter().map(value).sum()).collect()
    }
}

/// Returns `true` if an exponent is at an end of its search: within a thousandth of the range of [`RATE_EXPONENTS`].
pub(crate) fn is_at_exponent_bound(exponent: f64) -> bool {
    let [low, high] = RATE_EXPONENTS;
    (exponent - low).min(high - exponent) < 1e-3 * (high - low)
}

/// Returns logarithms of positions and weights, such that the weighted sum of a function is its mean over a range.
fn nodes((first, last): (usize, usize)) -> [(f64, f64); 5] {
    let ends = [first as f64 - 0.5, last as f64 + 0.5];
    let (middle, half) = (0.5 * (ends[0] * ends[1]).ln(), 0.5 * (ends[1] / ends[0]).ln());
    NODES.map(|(node, weight)| {
        let log = middle + half * node;
        (log, weight * half * log.exp() / (ends[1] - ends[0]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [(usize, usize); 8] =
        [(17, 23), (24, 32), (33, 45), (46, 64), (65, 91), (92, 128), (129, 181), (182, 256)];

    fn means(law: RateLaw, [rate, amplitude, exponent]: [f64; 3]) -> Vec<f64> {
        let mean = |&(first, last): &(usize, usize)| {
            let sum: f64 = (first..=last).map(|n| law.at(rate, amplitude, exponent, n as f64)).sum();
            sum / (last + 1 - first) as f64
        };
        RANGES.iter().map(mean).collect()
    }

    /// A covariance with a common level.
    fn covariance() -> Vec<Vec<f64>> {
        let entry = |i: usize, j: usize| 0.01 + if i == j { 1e-4 * (1.0 + i as f64) } else { 0.0 };
        (0..RANGES.len()).map(|i| (0..RANGES.len()).map(|j| entry(i, j)).collect()).collect()
    }

    #[test]
    fn exact_laws_are_recovered_from_means_over_ranges() {
        for (law, truth) in [
            (RateLaw::Power, [1.5, 3.0, 0.4]),
            (RateLaw::Power, [0.2, 4.0, 0.85]),
            (RateLaw::PowerLog, [1.5, 2.0, 0.1]),
            (RateLaw::Stretched, [2.0, 1.5, 0.5]),
        ] {
            let fitter = RateFitter::new(law, &RANGES);
            let (found, test) = fitter.fit(&means(law, truth), &covariance(), 50).unwrap();
            // The means are sums over positions, and the fit integrates.
            for (found, truth) in [found.rate, found.amplitude, found.exponent].into_iter().zip(truth) {
                assert!((found - truth).abs() < 0.02 * truth.max(0.5), "{law:?}: {found}, not {truth}");
            }
            assert!(test.p > 0.99 && test.dof == 5 && !found.is_at_bound, "{found:?} {test:?}");
            let again = fitter.fit_resample(&means(law, truth), &covariance()).unwrap();
            assert!((again.exponent - found.exponent).abs() < 1e-12, "{again:?} {found:?}");
        }
    }

    #[test]
    fn means_over_ranges_are_those_of_their_positions() {
        for range in RANGES {
            for exponent in [-1.0, 0.0, 0.7] {
                let power = |log: f64| ((exponent - 1.0) * log).exp() * log;
                let integral: f64 = nodes(range).iter().map(|(log, weight)| weight * power(*log)).sum();
                let sum: f64 = (range.0..=range.1).map(|n| power((n as f64).ln())).sum();
                let mean = sum / (range.1 + 1 - range.0) as f64;
                assert!((integral / mean - 1.0).abs() < 1e-3, "{range:?}, {exponent}: {integral}, not {mean}");
            }
        }
    }

    /// Neither the rate nor the amplitude is negative; a parameter at its bound is marked.
    #[test]
    fn parameters_stay_in_their_bounds() {
        let fit = |means: &[f64]| RateFitter::new(RateLaw::Power, &RANGES).fit(means, &covariance(), 50).unwrap().0;
        let found = fit(&means(RateLaw::Power, [-0.5, 4.0, 0.7]));
        assert_eq!((found.rate, found.is_at_bound), (0.0, true));
        let rising = fit(&means(RateLaw::Power, [3.0, -2.0, 0.3]));
        assert_eq!((rising.amplitude, rising.is_at_bound), (0.0, true));
        let constant = RateFitter::new(RateLaw::Constant, &RANGES);
        let (found, test) = constant.fit(&[2.0; 8], &covariance(), 50).unwrap();
        assert!((found.rate - 2.0).abs() < 1e-12 && !found.is_at_bound && test.dof == 7, "{found:?}");
        // A logarithm is the limit of a power law with an exponent of 1.
        let falling: Vec<f64> = RANGES.iter().map(|&(first, last)| 9.0 - ((first * last) as f64).sqrt().ln()).collect();
        assert!(fit(&falling).is_at_bound);
    }

    #[test]
    fn a_negative_mean_has_no_stretched_exponential() {
        let mut values = means(RateLaw::Power, [1.5, 3.0, 0.4]);
        let fitter = RateFitter::new(RateLaw::Stretched, &RANGES);
        assert!(fitter.fit_resample(&values, &covariance()).is_some());
        values[7] = -0.1;
        assert_eq!(fitter.fit_resample(&values, &covariance()), None);
    }
}
