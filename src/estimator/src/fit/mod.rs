//! Power laws through the estimates: least squares of `ln I` on `ln L`, plain, weighted, or with an additive bias.
//!
//! Start with [`FitMethod::fit`]. The fit with a bias has no closed form; `additive` solves it.

mod additive;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::value::Estimate;

/// How a power law is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FitMethod {
    /// Least squares of `ln I` on `ln L`, all points alike, as in the paper's scripts.
    #[default]
    LeastSquares,
    /// The same with weights `(I/σ)²`, the inverse variances of `ln I`; the errors are those that `σ` implies.
    Weighted,
    /// `I = amplitude · L^exponent + bias`, by least squares of `(fit - I) / I`.
    Additive,
}

impl FitMethod {
    /// All of them.
    pub const ALL: [FitMethod; 3] = [FitMethod::LeastSquares, FitMethod::Weighted, FitMethod::Additive];

    /// In a table.
    pub fn name(self) -> &'static str {
        match self {
            FitMethod::LeastSquares => "least squares",
            FitMethod::Weighted => "weighted",
            FitMethod::Additive => "with bias",
        }
    }

    /// The fit of points `(L, I)`, `L` positive. `None` with fewer than two different `L` (for [`FitMethod::Additive`] four) whose
    /// `I` is positive, for [`FitMethod::Weighted`] where an `I` has no error, and where there is no best fit.
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
                // A bias beyond the largest value is no bias any more.
                let largest = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
                Fit::additive(&values, -largest)
            }
        }
    }
}

/// `I = amplitude · L^exponent + bias`, `L` the tokens in `x` and `y` together.
///
/// The paper's scripts fit against `ℓ`, the tokens in `x`: for `L = 2ℓ` the same exponent, and an amplitude `2^exponent` times
/// as large.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// How it was fitted.
    #[serde(default)]
    pub method: FitMethod,
    /// `I - bias` at `L = 1`, in nats.
    pub amplitude: f64,
    /// Its standard error; absent for as many points as parameters, through which the curve goes exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amplitude_error: Option<f64>,
    /// The slope on logarithmic axes.
    pub exponent: f64,
    /// Its standard error; absent as for the amplitude.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent_error: Option<f64>,
    /// The exponent's 95 % interval, by resampling documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent_interval: Option<[f64; 2]>,
    /// What is added to the power law, in nats; present for [`FitMethod::Additive`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<f64>,
    /// The `L` of points that were left out because `I` was not positive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<f64>,
}

impl Fit {
    /// The least-squares fit of points `(L, I)`, `L` positive; `None` with fewer than two different `L` whose `I` is positive.
    ///
    /// All points count the same: their errors grow with `I`, and a weighted fit hears the shortest `L` most. The
    /// amplitude's error is that of its logarithm, times the amplitude.
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

    /// Fits a straight line through the logarithms; `weights` are inverse variances of `ln I`.
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
            left_out: left_out(points),
        })
    }

    /// The fit of `I = amplitude · L^exponent + bias` by least squares of `(fit - I) / I`, `bias` from `lowest` to below the
    /// smallest `I`, the amplitude positive and the exponent in -4..=4. `None` with fewer than four different `L` whose `I` is
    /// positive.
    ///
    /// Errors are those of the linearised problem; absent where the bias stands at a bound.
    pub fn additive(points: &[(f64, f64)], lowest: f64) -> Option<Self> {
        let positive: Vec<(f64, f64)> = points.iter().copied().filter(|(_, value)| *value > 0.0).collect();
        let solution = additive::solve(&positive, lowest)?;
        Some(Self {
            method: FitMethod::Additive,
            amplitude: solution.amplitude,
            amplitude_error: solution.errors.map(|errors| errors[0]),
            exponent: solution.exponent,
            exponent_error: solution.errors.map(|errors| errors[1]),
            exponent_interval: None,
            bias: Some(solution.bias),
            left_out: left_out(points),
        })
    }

    /// The curve's value at `length`, in nats.
    pub fn at(&self, length: f64) -> f64 {
        self.amplitude * length.powf(self.exponent) + self.bias.unwrap_or(0.0)
    }

    /// What the exponent means for a model of texts, by the L2M condition: Chen, Mayné i Comas, Jin, Luo and Soljačić, *L2M:
    /// Mutual Information Scaling Law for Long-Context Language Modeling* (2025).
    ///
    /// To hold what the beginning of a text tells about the rest, the state that a model carries from one to the other must
    /// grow at least as the mutual information does. Whether one does is said where the whole interval says it.
    pub fn l2m_reading(&self) -> String {
        let Some([low, high]) = self.exponent_interval else {
            return "How the state that carries the past must grow with the length of such texts (L2M condition) is not told: the \
                    exponent has no 95 % interval, for want of lengths with positive estimates, or of resamples."
                .to_owned();
        };
        let holds = |growth: f64| match () {
            () if high <= growth => "does",
            () if low > growth => "does not",
            () => "may or may not, these data do not tell",
        };
        format!(
            "To model such texts, the state that carries the past must grow with their length at least as L^{:.3} (95 % interval of \
             the exponent: {low:.3} to {high:.3}): a cache of keys and values, which grows as L, {}; a state of fixed size, unless \
             the model grows with L, {} (L2M condition).",
            self.exponent,
            holds(1.0),
            holds(0.0),
        )
    }
}

/// The weighted least-squares line through points.
struct Line {
    slope: f64,
    intercept: f64,
    /// The sum of the weights.
    total_weight: f64,
    mean_x: f64,
    /// `Σ w (x - mean_x)²`.
    spread: f64,
}

impl Line {
    /// Fits points `(x, y, weight)`; `None` with fewer than two different `x`, and where a weight is infinite.
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

    /// Sums the squared distances of the points from the line, all alike.
    fn squared_residuals(&self, points: &[(f64, f64, f64)]) -> f64 {
        points.iter().map(|(x, y, _)| (y - self.intercept - self.slope * x).powi(2)).sum()
    }
}

/// Returns the `L` whose `I` has no logarithm.
fn left_out(points: &[(f64, f64)]) -> Vec<f64> {
    let rest = points.iter().filter(|(_, value)| value.is_nan() || *value <= 0.0);
    rest.map(|(length, _)| *length).collect()
}

/// `2.27 (±0.05) L^0.760 (±0.010) [0.74, 0.78]`, and the bias where there is one.
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
        if let Some([low, high]) = self.exponent_interval {
            write!(f, " [{low:.3}, {high:.3}]")?;
        }
        if let Some(bias) = self.bias {
            write!(f, " {} {:.3}", if bias < 0.0 { "-" } else { "+" }, bias.abs())?;
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
    fn points_that_are_not_positive_are_left_out_and_reported() {
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

    #[test]
    fn weights_are_inverse_variances() {
        // Without the last point, whose error is large, the law is exact.
        let points = [(1.0, 1.0, 0.01), (4.0, 2.0, 0.02), (16.0, 4.0, 0.04), (64.0, 20.0, 2e5)];
        let points = points.map(|(length, value, error)| (length, Estimate::new(value, error)));
        let fit = FitMethod::Weighted.fit(&points).unwrap();
        assert!((fit.exponent - 0.5).abs() < 1e-6 && (fit.amplitude - 1.0).abs() < 1e-6, "{fit:?}");
        // Equal weights 1e4: the plain fit's slope, and the error that they imply.
        let points = [(1.0, 1.0), (4.0, 3.0), (16.0, 4.0)].map(|(l, i)| (l, Estimate::new(i, 0.01 * i)));
        let (weighted, plain) =
            (FitMethod::Weighted.fit(&points).unwrap(), FitMethod::LeastSquares.fit(&points).unwrap());
        assert!((weighted.exponent - plain.exponent).abs() < 1e-12);
        assert!((weighted.exponent_error.unwrap() - 0.01 / (2.0_f64.sqrt() * 4.0_f64.ln())).abs() < 1e-12);
        assert_eq!(FitMethod::Weighted.fit(&[(1.0, Estimate::new(1.0, 0.0)), (2.0, Estimate::new(2.0, 0.1))]), None);
    }

    #[test]
    fn an_exponent_is_read_by_what_must_grow() {
        let fit = |exponent, interval| Fit {
            exponent_interval: interval,
            ..Fit::of(&[(1.0, 1.0), (2.0, 2_f64.powf(exponent))]).unwrap()
        };
        for (exponent, interval, hint) in [
            (0.76, [0.7, 0.8], "at least as L^0.760 (95 % interval of the exponent: 0.700 to 0.800): a cache"),
            (0.9, [0.8, 1.0], "grows as L, does; a state of fixed size, unless the model grows with L, does not ("),
            (1.02, [0.873, 1.829], "grows as L, may or may not, these data do not tell; a state"),
            (0.98, [0.9, 1.1], "grows as L, may or may not, these data do not tell; a state"),
            (1.2, [1.1, 1.3], "grows as L, does not; a state"),
            (
                0.05,
                [-0.01, 0.1],
                "grows as L, does; a state of fixed size, unless the model grows with L, may or may not",
            ),
            (0.8, [-0.2, 1.8], "grows as L, may or may not, these data do not tell; a state of fixed size, unless the"),
            (-0.2, [-0.3, -0.1], "unless the model grows with L, does ("),
        ] {
            let text = fit(exponent, Some(interval)).l2m_reading();
            assert!(text.contains(hint), "{text}");
        }
        let text = fit(1.02, None).l2m_reading();
        assert!(text.contains("is not told") && !text.contains("at least as"), "{text}");
    }
}
