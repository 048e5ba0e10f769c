//! Power-law fits of the estimates: plain or weighted least squares of `ln I` on `ln L`, or least squares with an
//! additive bias.
//!
//! Start with [`FitMethod::fit`]. The fits with a bias have no closed form; `additive` and `paper` compute them
//! numerically, each for its own loss. `gls` fits and tests several [`Law`]s with the covariance between points,
//! and `rate_fit` several [`RateLaw`]s of surprisal by position; `separable` is their common part.

mod additive;
mod gls;
mod inverse;
mod law;
mod paper;
mod rate_fit;
mod rate_law;
mod search;
mod separable;
mod solution;
mod whitening;

pub(crate) use gls::CorrelatedMeans;
pub use gls::LawFit;
pub(crate) use gls::SIGNIFICANCE;
pub use law::Law;
pub(crate) use rate_fit::{RateFitter, RateSolution, is_at_exponent_bound};
pub use rate_law::RateLaw;
pub(crate) use separable::FitTest;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fit::solution::Solution;
use crate::number::{significant, with_error};
use crate::value::Estimate;

/// A method of fitting a power law.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FitMethod {
    /// Least squares of `ln I` on `ln L` with equal weights, as in the L2M paper's scripts.
    #[default]
    LeastSquares,
    /// Least squares of `ln I` on `ln L` with weights `(I/σ)²`, the inverse variances of `ln I`, where `σ` is the
    /// standard error of `I`. The fit's standard errors follow from `σ`.
    Weighted,
    /// Least squares of `(fit - I) / I`, with the fit `I = amplitude · L^exponent + bias`.
    Additive,
    /// Least squares of `ln(I - bias) - ln(amplitude) - exponent · ln L` with `0 <= bias < min I`: the loss of the class
    /// `LogLogBiasRegression` in the L2M paper's scripts, which fit two-point information with it. This is the loss's
    /// global minimum.
    PaperBias,
}

impl FitMethod {
    /// The methods that a report applies to estimates of bipartite information. The L2M paper's scripts fit a bias only
    /// to two-point information, so [`FitMethod::PaperBias`] is not among them.
    pub const ALL: [FitMethod; 3] = [FitMethod::LeastSquares, FitMethod::Weighted, FitMethod::Additive];

    /// Returns the method's name in a table.
    pub fn name(self) -> &'static str {
        match self {
            FitMethod::LeastSquares => "least squares",
            FitMethod::Weighted => "weighted",
            FitMethod::Additive => "with bias",
            FitMethod::PaperBias => "paper's bias",
        }
    }

    /// Fits points `(L, I)` with positive `L`. `None` if fewer than two distinct `L` (four for the methods with a
    /// bias) have a positive `I`, if an `I` has a standard error of 0 (for [`FitMethod::Weighted`]), or if there is no best
    /// fit.
    pub fn fit(self, points: &[(f64, Estimate)]) -> Option<Fit> {
        let values: Vec<(f64, f64)> = points.iter().map(|(length, estimate)| (*length, estimate.value)).collect();
        match self {
            FitMethod::LeastSquares => Fit::of(&values),
            FitMethod::Weighted => {
                let weight = |estimate: &Estimate| (estimate.value / estimate.error).powi(2);
                let weights: Vec<f64> = points.iter().map(|(_, estimate)| weight(estimate)).collect();
                Fit::line(&values, Some(&weights))
            }
            FitMethod::Additive => {
                // Bound a negative bias by the largest value: a bias of greater magnitude is not a small correction.
                let largest = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
                Fit::additive(&values, -largest)
            }
            FitMethod::PaperBias => Fit::paper(&values),
        }
    }
}

/// A fitted power law, `I = amplitude · L^exponent + bias`, where `L` is the number of tokens in `x` and `y` together.
///
/// The L2M paper's scripts fit `I` as a function of `ℓ`, the number of tokens in `x`. For `L = 2ℓ`, their exponent is
/// the same, and their amplitude is `2^exponent` times as large.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The method of the fit.
    #[serde(default)]
    pub method: FitMethod,
    /// The amplitude in nats: `I - bias` at `L = 1`.
    pub amplitude: f64,
    /// The amplitude's standard error; `None` for an unweighted fit of two points, which is exact, and for a fit whose
    /// bias is at a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amplitude_error: Option<f64>,
    /// The exponent. Without a bias, this is the slope on logarithmic axes.
    pub exponent: f64,
    /// The exponent's standard error; `None` in the same cases as `amplitude_error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent_error: Option<f64>,
    /// The exponent's 95 % confidence interval, from resampled texts; `None` if it was not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent_interval: Option<[f64; 2]>,
    /// The bias that is added to the power law, in nats; `None` unless the method has a bias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<f64>,
    /// `true` if the bias is at a bound of its range, so the data do not determine the fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bias_at_bound: bool,
    /// The `L` of the points that were omitted because their `I` is not positive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<f64>,
}

impl Fit {
    /// Fits points `(L, I)` with positive `L` by least squares; `None` if fewer than two distinct `L` have a positive
    /// `I`.
    ///
    /// All points have equal weight, because errors grow with `I`, and the smallest `L` would dominate a weighted fit.
    /// The amplitude's error is the error of its logarithm, times the amplitude.
    ///
    /// ```
    /// use surprisal_estimator::Fit;
    ///
    /// let fit = Fit::of(&[(4.0, 6.0), (16.0, 12.0), (64.0, 24.0)]).unwrap();
    /// assert!((fit.amplitude - 3.0).abs() < 1e-12 && (fit.exponent - 0.5).abs() < 1e-12);
    /// ```
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        Self::line(points, None)
    }

    /// Fits a straight line through the logarithms. `weights` are the inverse variances of `ln I`; `None` for equal
    /// weights.
    fn line(points: &[(f64, f64)], weights: Option<&[f64]>) -> Option<Self> {
        let mut logs = Vec::with_capacity(points.len());
        for (index, (length, value)) in points.iter().enumerate() {
            if *value > 0.0 {
                logs.push((length.ln(), value.ln(), weights.map_or(1.0, |weights| weights[index])));
            }
        }
        let line = Line::through(&logs)?;
        let variance = match weights {
            Some(_) => Some(1.0),
            None => (logs.len() > 2).then(|| line.squared_residuals(&logs) / (logs.len() as f64 - 2.0)),
        };
        let amplitude = line.intercept.exp();
        let Line { total_weight, mean_x, spread, .. } = line;
        Some(Self {
            method: if weights.is_some() { FitMethod::Weighted } else { FitMethod::LeastSquares },
            amplitude,
            amplitude_error: variance.map(|v| amplitude * (v * (1.0 / total_weight + mean_x * mean_x / spread)).sqrt()),
            exponent: line.slope,
            exponent_error: variance.map(|v| (v / spread).sqrt()),
            exponent_interval: None,
            bias: None,
            bias_at_bound: false,
            left_out: left_out(points),
        })
    }

    /// Fits `I = amplitude · L^exponent + bias` by least squares of `(fit - I) / I`. The bias is in the range from
    /// `lowest` to just below the smallest `I`, the amplitude is positive, and the exponent is searched from -4 to 4.
    /// `None` if fewer than four distinct `L` have a positive `I`, or if there is no best fit.
    ///
    /// Standard errors come from the linearized problem; `None` if the bias is at a bound.
    pub fn additive(points: &[(f64, f64)], lowest: f64) -> Option<Self> {
        Self::with_bias(FitMethod::Additive, points, |positive| additive::solve(positive, lowest))
    }

    /// Fits `I = amplitude · L^exponent + bias` by the loss of the L2M paper's scripts ([`FitMethod::PaperBias`]).
    /// `None` if fewer than four distinct `L` have a positive `I`.
    ///
    /// Standard errors come from the linearized problem; `None` if the bias is at its bound, 0.
    ///
    /// ```
    /// use surprisal_estimator::Fit;
    ///
    /// let points: Vec<(f64, f64)> = (0..8).map(|power| (f64::from(1 << power), 2.0 / f64::from(1 << power) + 0.5)).collect();
    /// let fit = Fit::paper(&points).unwrap();
    /// assert!((fit.exponent + 1.0).abs() < 1e-6 && (fit.bias.unwrap() - 0.5).abs() < 1e-6);
    /// ```
    pub fn paper(points: &[(f64, f64)]) -> Option<Self> {
        Self::with_bias(FitMethod::PaperBias, points, paper::solve)
    }

    /// Fits the points with positive `I`, and lists the others.
    fn with_bias(
        method: FitMethod,
        points: &[(f64, f64)],
        solve: impl Fn(&[(f64, f64)]) -> Option<Solution>,
    ) -> Option<Self> {
        let positive: Vec<(f64, f64)> = points.iter().copied().filter(|(_, value)| *value > 0.0).collect();
        let Solution { amplitude, exponent, bias, errors, is_at_bound } = solve(&positive)?;
        Some(Self {
            method,
            amplitude,
            amplitude_error: errors.map(|errors| errors[0]),
            exponent,
            exponent_error: errors.map(|errors| errors[1]),
            exponent_interval: None,
            bias: Some(bias),
            bias_at_bound: is_at_bound,
            left_out: left_out(points),
        })
    }

    /// Returns the curve's value at `length`, in nats.
    pub fn at(&self, length: f64) -> f64 {
        self.amplitude * length.powf(self.exponent) + self.bias.unwrap_or(0.0)
    }
}

/// The weighted least-squares line through points.
struct Line {
    slope: f64,
    intercept: f64,
    /// The sum of the weights.
    total_weight: f64,
    mean_x: f64,
    /// The weighted sum of squares `Σ w (x - mean_x)²`.
    spread: f64,
}

impl Line {
    /// Fits points `(x, y, weight)`; `None` if there are fewer than two distinct `x`, or if a weight is not finite.
    fn through(points: &[(f64, f64, f64)]) -> Option<Self> {
        let total_weight: f64 = points.iter().map(|(_, _, w)| w).sum();
        let mean_x = points.iter().map(|(x, _, w)| w * x).sum::<f64>() / total_weight;
        let mean_y = points.iter().map(|(_, y, w)| w * y).sum::<f64>() / total_weight;
        let spread: f64 = points.iter().map(|(x, _, w)| w * (x - mean_x).powi(2)).sum();
        if points.len() < 2 || !total_weight.is_finite() || spread <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y, w)| w * (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        Some(Self { slope, intercept: mean_y - slope * mean_x, total_weight, mean_x, spread })
    }

    /// Returns the sum of the squared residuals, without weights.
    fn squared_residuals(&self, points: &[(f64, f64, f64)]) -> f64 {
        points.iter().map(|(x, y, _)| (y - self.intercept - self.slope * x).powi(2)).sum()
    }
}

/// Returns each `L` whose `I` is not positive.
fn left_out(points: &[(f64, f64)]) -> Vec<f64> {
    let rest = points.iter().filter(|(_, value)| value.is_nan() || *value <= 0.0);
    rest.map(|(length, _)| *length).collect()
}

impl Fit {
    /// Returns the law with its errors and the exponent's interval, in a variable such as `L`.
    pub(crate) fn law(&self, variable: &str) -> String {
        let amplitude = match self.amplitude_error.map(|error| with_error(self.amplitude, error)) {
            Some(text) if text.starts_with('(') => text,
            Some(text) => format!("({text})"),
            None => significant(self.amplitude, 3),
        };
        let exponent = match self.exponent_error {
            Some(error) => format!("({})", with_error(self.exponent, error)),
            None => format!("{:.3}", self.exponent),
        };
        let interval = self.exponent_interval.map_or(String::new(), |[low, high]| format!(" [{low:.3}, {high:.3}]"));
        format!("{amplitude}·{variable}^{exponent}{interval}{}", self.signed_bias())
    }

    /// Returns the bias with its sign, as the end of an equation, marked if it is at its bound; an empty string if there
    /// is none.
    pub(crate) fn signed_bias(&self) -> String {
        let Some(bias) = self.bias else { return String::new() };
        let mark = if self.bias_at_bound { " (bias at its bound)" } else { "" };
        format!(" {} {}{mark}", if bias < 0.0 { "-" } else { "+" }, significant(bias.abs(), 3))
    }
}

/// Formats the fit as `(2.27 ± 0.05)·L^(0.760 ± 0.010) [0.740, 0.780] + 0.300`, omitting the errors, the interval and
/// the bias if they are `None`.
impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.law("L"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_linear_regression() {
        // From numpy.linalg.lstsq on the logarithms; errors from the residual variance with two degrees of freedom.
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
    fn points_that_are_not_positive_are_left_out_and_reported() {
        let fit = Fit::of(&[(2.0, -0.1), (4.0, 2.0), (8.0, 0.0), (16.0, 8.0), (32.0, f64::NAN)]).unwrap();
        assert_eq!(fit.left_out, [2.0, 8.0, 32.0]);
        assert!((fit.exponent - 1.0).abs() < 1e-12 && (fit.at(8.0) - 4.0).abs() < 1e-12);
        assert_eq!((fit.amplitude_error, fit.exponent_error), (None, None));
    }

    #[test]
    fn one_length_is_too_few_for_a_line() {
        assert_eq!(Fit::of(&[(2.0, 1.0), (4.0, -1.0)]), None);
        assert_eq!(Fit::of(&[(2.0, 1.0), (2.0, 3.0)]), None);
        assert_eq!(Fit::of(&[]), None);
    }

    #[test]
    fn weights_are_inverse_variances() {
        // The law is exact except for the last point, whose error is large.
        let points = [(1.0, 1.0, 0.01), (4.0, 2.0, 0.02), (16.0, 4.0, 0.04), (64.0, 20.0, 2e5)];
        let points = points.map(|(length, value, error)| (length, Estimate::new(value, error)));
        let fit = FitMethod::Weighted.fit(&points).unwrap();
        assert!((fit.exponent - 0.5).abs() < 1e-6 && (fit.amplitude - 1.0).abs() < 1e-6, "{fit:?}");
        // Equal weights of 1e4: the slope is that of the unweighted fit; the error follows from the weights.
        let points = [(1.0, 1.0), (4.0, 3.0), (16.0, 4.0)].map(|(l, i)| (l, Estimate::new(i, 0.01 * i)));
        let (weighted, plain) =
            (FitMethod::Weighted.fit(&points).unwrap(), FitMethod::LeastSquares.fit(&points).unwrap());
        assert!((weighted.exponent - plain.exponent).abs() < 1e-12);
        assert!((weighted.exponent_error.unwrap() - 0.01 / (2.0_f64.sqrt() * 4.0_f64.ln())).abs() < 1e-12);
        assert_eq!(FitMethod::Weighted.fit(&[(1.0, Estimate::new(1.0, 0.0)), (2.0, Estimate::new(2.0, 0.1))]), None);
    }

    #[test]
    fn laws_are_readable_at_every_size() {
        let fit = Fit {
            amplitude_error: Some(0.172),
            exponent_error: Some(0.0168),
            exponent_interval: Some([0.584, 0.65]),
            bias: Some(-11.151),
            ..Fit::of(&[(1.0, 2.181), (2.0, 2.181 * 2_f64.powf(0.62))]).unwrap()
        };
        assert_eq!(fit.to_string(), "(2.18 ± 0.17)·L^(0.620 ± 0.017) [0.584, 0.650] - 11.2");
        let huge = Fit { amplitude: 11_508_705_445_992.0, amplitude_error: Some(2_018_462_503_789.0), ..fit.clone() };
        assert!(huge.law("d").starts_with("(1.15 ± 0.20)·10¹³·d^(0.620"), "{huge}");
        let bare = Fit { amplitude: 2.3e-7, amplitude_error: None, exponent_error: None, bias: None, ..fit };
        assert_eq!(bare.law("d"), "2.30·10⁻⁷·d^0.620 [0.584, 0.650]");
    }
}
