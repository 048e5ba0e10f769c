//! The power law with a bias by the loss of the L2M paper's scripts.
//!
//! The scripts' class `LogLogBiasRegression` minimizes `mean((ln(I - c) - ln A - β ln L)²)` over `A`, `β` and `c`, with
//! `c = min I / (1 + exp(-t))`, so `0 < c < min I`. It calls SciPy's `minimize` (BFGS) once, from `ln A = 0`, `β = -0.4`
//! and `t = 0`. This file finds the global minimum instead: for a given `c`, the best `A` and `β` are those of a
//! straight line, so only `c` is searched, on a grid of `t` and then by golden-section search around each local minimum
//! of the grid. `c = 0` is a candidate, too; the scripts' `t` then runs to minus infinity. BFGS may also run there although
//! a `c` near `min I` has a lower loss.

use std::ops::Range;

use crate::fit::inverse::invert;
use crate::fit::search::golden_section;
use crate::fit::solution::Solution;

/// The grid of `t` in units of [`SPACING`]: a bias from `1e-13 min I` to `(1 - 1e-13) min I`.
const GRID: Range<i32> = -600..601;

/// The distance between neighboring `t` of the grid.
const SPACING: f64 = 0.05;

/// The number of golden-section steps around a local minimum of the grid.
const STEPS: usize = 60;

/// The straight line `ln(I - c) = ln A + β ln L` for one `c`.
#[derive(Clone, Copy, Debug)]
struct Line {
    intercept: f64,
    slope: f64,
    /// The sum of squared residuals.
    squares: f64,
}

/// Returns the best fit of points with positive values; `None` if there are fewer than four distinct `L`.
pub(crate) fn solve(points: &[(f64, f64)]) -> Option<Solution> {
    let mut lengths: Vec<f64> = points.iter().map(|(length, _)| *length).collect();
    lengths.sort_unstable_by(f64::total_cmp);
    lengths.dedup();
    if lengths.len() < 4 {
        return None;
    }
    let smallest = points.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let bias = best_bias(points, smallest);
    let line = line(points, smallest, bias);
    let errors = match bias {
        Bias::Zero => None,
        Bias::Free(_) => standard_errors(points, smallest, bias, line),
    };
    let fit = Solution {
        amplitude: line.intercept.exp(),
        exponent: line.slope,
        bias: bias.share() * smallest,
        errors,
        is_at_bound: matches!(bias, Bias::Zero),
    };
    (fit.amplitude.is_finite() && fit.exponent.is_finite()).then_some(fit)
}

/// A bias: 0, or the fraction `1 / (1 + exp(-t))` of the smallest value.
#[derive(Clone, Copy, Debug)]
enum Bias {
    Zero,
    Free(f64),
}

impl Bias {
    fn share(self) -> f64 {
        match self {
            Self::Zero => 0.0,
            Self::Free(t) => 1.0 / (1.0 + (-t).exp()),
        }
    }

    /// Returns `I - c`, without cancellation for the smallest `I`.
    fn without(self, value: f64, smallest: f64) -> f64 {
        match self {
            Self::Zero => value,
            Self::Free(t) => (value - smallest) + smallest / (1.0 + t.exp()),
        }
    }
}

/// Finds the bias with the smallest sum of squares.
fn best_bias(points: &[(f64, f64)], smallest: f64) -> Bias {
    let squares = |t: f64| line(points, smallest, Bias::Free(t)).squares;
    let grid: Vec<f64> = GRID.map(|index| squares(f64::from(index) * SPACING)).collect();
    let mut best = (line(points, smallest, Bias::Zero).squares, Bias::Zero);
    for (index, around) in grid.windows(3).enumerate() {
        if around[1] <= around[0] && around[1] <= around[2] {
            let t = f64::from(GRID.start + 1 + index as i32) * SPACING;
            let t = golden_section(squares, t - SPACING, t + SPACING, STEPS);
            // Where the loss is flat in t, the bias is 0 up to rounding.
            if squares(t) < best.0 * (1.0 - 1e-12) {
                best = (squares(t), Bias::Free(t));
            }
        }
    }
    best.1
}

/// Returns the least-squares line for a bias.
fn line(points: &[(f64, f64)], smallest: f64, bias: Bias) -> Line {
    let count = points.len() as f64;
    let logs = || points.iter().map(|&(length, value)| (length.ln(), bias.without(value, smallest).ln()));
    let (x, y) = logs().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x / count, sy + y / count));
    let (xx, xy) = logs().fold((0.0, 0.0), |(xx, xy), (lx, ly)| (xx + (lx - x).powi(2), xy + (lx - x) * (ly - y)));
    let slope = xy / xx;
    let intercept = y - slope * x;
    Line { intercept, slope, squares: logs().map(|(lx, ly)| (ly - intercept - slope * lx).powi(2)).sum() }
}

/// Returns the standard errors of amplitude and exponent in the linearized problem, whose residuals `r` have the
/// variance `Σ r² / (points - 3)`; `None` if it is singular or has no residuals.
///
/// The slopes of a residual `ln(I - c) - ln A - β ln L` are `-1` for `ln A`, `-ln L` for `β` and `-1 / (I - c)` for `c`.
fn standard_errors(points: &[(f64, f64)], smallest: f64, bias: Bias, line: Line) -> Option<[f64; 2]> {
    let variance = line.squares / (points.len() as f64 - 3.0);
    let mut normal = [[0.0; 3]; 3];
    for &(length, value) in points {
        // The slope for c is scaled by the smallest I - c, which does not change the errors of the others.
        let scale = bias.without(smallest, smallest);
        let slopes = [1.0, length.ln(), scale / bias.without(value, smallest)];
        for i in 0..3 {
            for j in 0..3 {
                normal[i][j] += slopes[i] * slopes[j];
            }
        }
    }
    let inverse = invert(normal)?;
    let [intercept, slope] = [0, 1].map(|i| (variance * inverse[i][i]).sqrt());
    let errors = [line.intercept.exp() * intercept, slope];
    errors.iter().all(|error| error.is_finite()).then_some(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(amplitude: f64, exponent: f64, bias: f64) -> Vec<(f64, f64)> {
        (0..=12).map(|power| f64::from(1 << power)).map(|d| (d, amplitude * d.powf(exponent) + bias)).collect()
    }

    #[test]
    fn an_exact_law_is_recovered() {
        for (amplitude, exponent, bias) in [(2.2, -0.9, 0.1), (0.6, -0.35, 0.01), (1.5, 0.7, 0.4)] {
            let fit = solve(&law(amplitude, exponent, bias)).unwrap();
            assert!((fit.exponent - exponent).abs() < 1e-6, "{fit:?}");
            assert!((fit.amplitude / amplitude - 1.0).abs() < 1e-6, "{fit:?}");
            assert!((fit.bias - bias).abs() < 1e-6, "{fit:?}");
        }
    }

    #[test]
    fn a_law_without_a_bias_is_a_straight_line() {
        // With a negative bias in the data, the best bias is 0, its bound.
        let points = law(2.0, -0.3, -0.05);
        let fit = solve(&points).unwrap();
        assert_eq!((fit.bias, fit.errors), (0.0, None));
        let plain = crate::fit::Fit::of(&points).unwrap();
        assert!((fit.exponent - plain.exponent).abs() < 1e-12 && (fit.amplitude - plain.amplitude).abs() < 1e-12);
    }

    /// The loss has a local minimum near the smallest value and another near 0: the lower one is found.
    #[test]
    fn no_bias_on_a_fine_grid_is_better() {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 24) - 0.5
        };
        for _ in 0..50 {
            let points: Vec<(f64, f64)> =
                law(1.0, -0.6, 0.05).into_iter().map(|(d, value)| (d, value * (1.5 * noise()).exp())).collect();
            let smallest = points.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
            let fit = solve(&points).unwrap();
            let loss = |share: f64| {
                let logs: Vec<(f64, f64)> = points.iter().map(|(d, value)| (*d, value - share * smallest)).collect();
                line(&logs, 1.0, Bias::Zero).squares
            };
            let found = loss(fit.bias / smallest);
            let lowest = (0..20_000).map(|step| loss(f64::from(step) / 20_000.0)).fold(f64::INFINITY, f64::min);
            assert!(found <= lowest * (1.0 + 1e-9), "{found} {lowest} {fit:?}");
        }
    }

    #[test]
    fn three_lengths_are_too_few() {
        assert!(solve(&law(1.0, -0.5, 0.1)[..3]).is_none());
    }
}
