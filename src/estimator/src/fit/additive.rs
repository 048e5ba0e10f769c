//! The least-squares power law with an additive bias.
//!
//! For a given exponent, finding the amplitude and the bias is a linear least-squares problem. The exponent is found on
//! a grid, then by golden-section search. If the bias is not at a bound, the Gauss-Newton method refines all three
//! parameters.

use crate::fit::inverse::invert;
use crate::fit::search::golden_section;
use crate::fit::solution::Solution;

/// The exponents of the grid, in units of [`SPACING`]; 0 is omitted.
const EXPONENTS: std::ops::RangeInclusive<i32> = -20..=20;

/// The distance between neighboring exponents of the grid.
const SPACING: f64 = 0.2;

/// The number of golden-section steps between neighboring exponents of the grid.
const STEPS: usize = 45;

/// The minimum gap between the bias and the smallest value of the points, as a fraction of that value.
const GAP: f64 = 1e-6;

/// The least-squares problem, with lengths divided by their geometric mean.
struct LeastSquares {
    /// The points `(ln(L / geometric mean), I)`.
    points: Vec<(f64, f64)>,
    lowest: f64,
    highest: f64,
}

/// Returns the best fit of points with positive values; see [`Fit::additive`](crate::fit::Fit::additive).
pub(crate) fn solve(points: &[(f64, f64)], lowest: f64) -> Option<Solution> {
    if count_lengths(points) < 4 {
        return None;
    }
    let centre = points.iter().map(|(length, _)| length.ln()).sum::<f64>() / points.len() as f64;
    let problem = LeastSquares::new(points, centre, lowest);
    let exponent = problem.best_exponent()?;
    let (amplitude, bias, _) = problem.best(exponent)?;
    let mut fit = [amplitude, exponent, bias];
    let mut covariance = None;
    let is_free = bias > lowest && bias < problem.highest;
    if is_free {
        let (minimum, at_minimum) = problem.newton(fit)?;
        (fit, covariance) = (minimum, Some(at_minimum));
    }
    let scale = (-fit[1] * centre).exp();
    let errors = covariance.map(|covariance| standard_errors(fit, covariance, centre, scale));
    Some(Solution { amplitude: fit[0] * scale, exponent: fit[1], bias: fit[2], is_at_bound: errors.is_none(), errors })
}

/// Counts the distinct lengths.
fn count_lengths(points: &[(f64, f64)]) -> usize {
    let mut lengths: Vec<f64> = points.iter().map(|(length, _)| *length).collect();
    lengths.sort_unstable_by(f64::total_cmp);
    lengths.dedup();
    lengths.len()
}

/// Returns the standard errors of the amplitude and the exponent for the original lengths.
///
/// `ln A = ln A' - exponent · centre`, where `A` is the amplitude for the original lengths and `A'` for the divided
/// lengths. So the error of `A` has contributions from `A'` and from the exponent.
fn standard_errors(fit: [f64; 3], covariance: [[f64; 3]; 3], centre: f64, scale: f64) -> [f64; 2] {
    let (da, de) = (scale, -centre * fit[0] * scale);
    let amplitude = da * da * covariance[0][0] + 2.0 * da * de * covariance[0][1] + de * de * covariance[1][1];
    [amplitude.sqrt(), covariance[1][1].sqrt()]
}

impl LeastSquares {
    /// Creates the problem for lengths whose mean logarithm is `centre`.
    fn new(points: &[(f64, f64)], centre: f64, lowest: f64) -> Self {
        let smallest = points.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
        let points = points.iter().map(|(length, value)| (length.ln() - centre, *value)).collect();
        Self { points, lowest, highest: smallest * (1.0 - GAP) }
    }

    /// Finds the exponent with the smallest sum of squares: the best exponent on the grid, then golden-section search
    /// between that exponent's neighbors.
    fn best_exponent(&self) -> Option<f64> {
        let grid = EXPONENTS.filter(|&index| index != 0).map(|index| f64::from(index) * SPACING);
        let (nearest, _) =
            grid.filter_map(|exponent| Some((exponent, self.best(exponent)?.2))).min_by(|a, b| a.1.total_cmp(&b.1))?;
        let squares = |exponent: f64| self.best(exponent).map_or(f64::INFINITY, |(_, _, squares)| squares);
        Some(golden_section(squares, nearest - SPACING, nearest + SPACING, STEPS))
    }

    /// Returns the best amplitude and bias for an exponent, and the sum of squares; `None` if amplitude and bias are
    /// not unique, or if the amplitude is not positive.
    fn best(&self, exponent: f64) -> Option<(f64, f64, f64)> {
        // The unknowns are a and c in (a p + c) / I = 1, with p = L^exponent.
        let (mut pp, mut p1, mut one, mut py, mut y1) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(ln, value) in &self.points {
            let (p, q) = ((exponent * ln).exp() / value, 1.0 / value);
            pp += p * p;
            p1 += p * q;
            one += q * q;
            py += p;
            y1 += q;
        }
        let determinant = pp * one - p1 * p1;
        let free = (pp * y1 - p1 * py) / determinant;
        let bias = if free.is_finite() { free.clamp(self.lowest, self.highest) } else { return None };
        let amplitude = (py - p1 * bias) / pp;
        let squares = self.residuals([amplitude, exponent, bias]).map(|r| r * r).sum();
        (amplitude > 0.0).then_some((amplitude, bias, squares))
    }

    fn residuals(&self, [amplitude, exponent, bias]: [f64; 3]) -> impl Iterator<Item = f64> + '_ {
        self.points.iter().map(move |&(ln, value)| (amplitude * (exponent * ln).exp() + bias) / value - 1.0)
    }

    /// Takes Gauss-Newton steps from a start near the minimum. Returns the minimum and the covariance there: the
    /// inverse of `JᵀJ`, times the variance of the residuals with (number of points - 3) degrees of freedom.
    fn newton(&self, start: [f64; 3]) -> Option<([f64; 3], [[f64; 3]; 3])> {
        let mut fit = start;
        let mut inverse = [[0.0; 3]; 3];
        for _ in 0..20 {
            let (mut normal, mut gradient) = ([[0.0; 3]; 3], [0.0; 3]);
            for (&(ln, value), residual) in self.points.iter().zip(self.residuals(fit)) {
                let power = (fit[1] * ln).exp() / value;
                let slope = [power, fit[0] * ln * power, 1.0 / value];
                for i in 0..3 {
                    gradient[i] += slope[i] * residual;
                    for j in 0..3 {
                        normal[i][j] += slope[i] * slope[j];
                    }
                }
            }
            inverse = invert(normal)?;
            for i in 0..3 {
                fit[i] -= (0..3).map(|j| inverse[i][j] * gradient[j]).sum::<f64>();
            }
        }
        let freedom = self.points.len() as f64 - 3.0;
        let variance = self.residuals(fit).map(|r| r * r).sum::<f64>() / freedom;
        let covariance = inverse.map(|row| row.map(|value| value * variance));
        fit.iter().all(|value| value.is_finite()).then_some((fit, covariance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(amplitude: f64, exponent: f64, bias: f64) -> Vec<(f64, f64)> {
        (1..=9).map(|power| f64::from(1 << power)).map(|l| (l, amplitude * l.powf(exponent) + bias)).collect()
    }

    #[test]
    fn an_exact_law_is_recovered() {
        for (amplitude, exponent, bias) in [(1.1, -0.91, 0.3), (2.3, 0.76, 1.5), (2.3, 0.5, -0.4), (0.02, 1.3, 0.9)] {
            let fit = solve(&law(amplitude, exponent, bias), -10.0).unwrap();
            assert!((fit.exponent - exponent).abs() < 1e-9, "{fit:?}");
            assert!((fit.amplitude / amplitude - 1.0).abs() < 1e-9, "{fit:?}");
            assert!((fit.bias - bias).abs() < 1e-9, "{fit:?}");
            assert!(fit.errors.unwrap()[1] < 1e-9);
        }
    }

    #[test]
    fn a_bias_below_the_bound_is_clamped() {
        let fit = solve(&law(2.0, 0.5, -0.4), 0.0).unwrap();
        assert_eq!((fit.bias, fit.errors), (0.0, None));
        assert!(fit.exponent > 0.5, "{fit:?}");
    }

    #[test]
    fn three_points_are_too_few() {
        assert!(solve(&law(1.0, 0.5, 0.1)[..3], 0.0).is_none());
        assert!(solve(&[(2.0, 1.0), (2.0, 2.0), (3.0, 1.0), (4.0, 2.0)], 0.0).is_none());
    }
}
