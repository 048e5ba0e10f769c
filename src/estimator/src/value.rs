//! A value with its standard error and confidence interval.

use std::fmt;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::number::with_error;

/// A value with its standard error and, if it was computed, its interval. All three have the same unit: for
/// information, nats in [`Estimates`](crate::Estimates) and the report's unit in a [`Report`](crate::Report).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// The standard error.
    pub error: f64,
    /// The 95 % interval, usually of the BCa bootstrap over texts; `None` if it was not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

impl Estimate {
    /// Creates an estimate without an interval.
    pub fn new(value: f64, error: f64) -> Self {
        Self { value, error, interval: None }
    }

    /// Returns the mean of at least two values, with its standard error.
    pub(crate) fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let value = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|v| (v - value) * (v - value)).sum();
        Self::new(value, (squares / (count - 1.0) / count).sqrt())
    }

    /// Multiplies the value, its error and its interval by a factor.
    pub(crate) fn scale(&mut self, factor: f64) {
        self.value *= factor;
        self.error *= factor;
        self.interval = self.interval.map(|ends| ends.map(|end| end * factor));
    }

    /// Adds the 95 % interval by Student's t distribution with these degrees of freedom.
    pub(crate) fn with_t_interval(self, freedom: f64) -> Self {
        let Self { value, error, .. } = self;
        let quantile = StudentsT::new(0.0, 1.0, freedom).map(|t| t.inverse_cdf(0.975));
        Self { interval: quantile.ok().map(|q| [value - q * error, value + q * error]), ..self }
    }

    /// Widens the estimate by an independent standard error. Adds `error` in quadrature to the standard error, and
    /// `error` times the normal distribution's 97.5 % quantile in quadrature to each side of the interval.
    pub(crate) fn widened(mut self, error: f64) -> Self {
        const NORMAL_975: f64 = 1.959_963_984_540_054;
        let (value, side) = (self.value, NORMAL_975 * error);
        self.error = self.error.hypot(error);
        self.interval =
            self.interval.map(|[low, high]| [value - (value - low).hypot(side), value + (high - value).hypot(side)]);
        self
    }
}

/// Formats value and error with two significant digits of the error: `5.50 ± 0.71`, `(1.15 ± 0.20)·10¹³`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_error(self.value, self.error))
    }
}
