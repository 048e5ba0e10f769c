//! A power law through the estimates: ordinary least squares of `ln I` on `ln L`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `I = amplitude · L^exponent`, `L` the tokens in `x` and `y` together.
///
/// The paper's scripts fit against `ℓ`, the tokens in `x`: for `L = 2ℓ` the same exponent, and an amplitude `2^exponent` times
/// as large.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// `I` at `L = 1`, in nats.
    pub amplitude: f64,
    /// Its standard error; absent for two points, through which any line goes exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amplitude_error: Option<f64>,
    /// The slope on logarithmic axes.
    pub exponent: f64,
    /// Its standard error; absent for two points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent_error: Option<f64>,
    /// The `L` of points that were left out because `I` was not positive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<f64>,
}

impl Fit {
    /// The fit of points `(L, I)`, `L` positive; `None` with fewer than two different `L` whose `I` is positive.
    ///
    /// All points count the same: their errors grow with `I`, and a weighted fit would hear the shortest `L` alone. The
    /// amplitude's error is that of its logarithm, times the amplitude.
    ///
    /// ```
    /// use surprisal_estimator::Fit;
    ///
    /// let fit = Fit::of(&[(4.0, 6.0), (16.0, 12.0), (64.0, 24.0)]).unwrap();
    /// assert!((fit.amplitude - 3.0).abs() < 1e-12 && (fit.exponent - 0.5).abs() < 1e-12);
    /// ```
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let (positive, rest): (Vec<_>, Vec<_>) = points.iter().partition(|(_, value)| *value > 0.0);
        let logs: Vec<(f64, f64)> = positive.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
        let count = logs.len() as f64;
        let mean_x = logs.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = logs.iter().map(|(_, y)| y).sum::<f64>() / count;
        let spread: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if logs.len() < 2 || spread <= 0.0 {
            return None;
        }
        let exponent = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let intercept = mean_y - exponent * mean_x;
        let residuals: f64 = logs.iter().map(|(x, y)| (y - intercept - exponent * x).powi(2)).sum();
        let variance = (logs.len() > 2).then(|| residuals / (count - 2.0));
        let amplitude = intercept.exp();
        Some(Self {
            amplitude,
            amplitude_error: variance.map(|v| amplitude * (v * (1.0 / count + mean_x * mean_x / spread)).sqrt()),
            exponent,
            exponent_error: variance.map(|v| (v / spread).sqrt()),
            left_out: rest.iter().map(|(x, _)| *x).collect(),
        })
    }

    /// The power law's value at `length`, in nats.
    pub fn at(&self, length: f64) -> f64 {
        self.amplitude * length.powf(self.exponent)
    }
}

/// `2.27 (±0.05) L^0.760 (±0.010)`.
impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.amplitude)?;
        if let Some(error) = self.amplitude_error {
            write!(f, " (±{error:.3})")?;
        }
        write!(f, " L^{:.3}", self.exponent)?;
        if let Some(error) = self.exponent_error {
            write!(f, " (±{error:.3})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_linear_regression() {
        // numpy.linalg.lstsq on the logarithms, errors from the residual variance with two degrees of freedom.
        let points = [(1.0, 1.1), (2.0, 1.9), (4.0, 4.2), (8.0, 7.7)];
        let fit = Fit::of(&points).unwrap();
        let (exact_slope, slope_error, amplitude, amplitude_error) =
            (0.956_645_467_6, 0.046_292_609_9, 1.060_481_517_8, 0.063_661_116_9);
        assert!((fit.exponent - exact_slope).abs() < 1e-9, "{fit:?}");
        assert!((fit.exponent_error.unwrap() - slope_error).abs() < 1e-9, "{fit:?}");
        assert!((fit.amplitude - amplitude).abs() < 1e-9, "{fit:?}");
        assert!((fit.amplitude_error.unwrap() - amplitude_error).abs() < 1e-9, "{fit:?}");
    }

    #[test]
    fn points_that_are_not_positive_are_left_out_and_told() {
        let fit = Fit::of(&[(2.0, -0.1), (4.0, 2.0), (8.0, 0.0), (16.0, 8.0), (32.0, f64::NAN)]).unwrap();
        assert_eq!(fit.left_out, [2.0, 8.0, 32.0]);
        assert!((fit.exponent - 1.0).abs() < 1e-12 && (fit.at(8.0) - 4.0).abs() < 1e-12);
        assert_eq!((fit.amplitude_error, fit.exponent_error), (None, None));
    }

    #[test]
    fn one_point_makes_no_line() {
        assert_eq!(Fit::of(&[(2.0, 1.0), (4.0, -1.0)]), None);
        assert_eq!(Fit::of(&[(2.0, 1.0), (2.0, 3.0)]), None);
        assert_eq!(Fit::of(&[]), None);
    }
}
