//! A value with its standard error and confidence interval.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A mean and its standard error (sample standard deviation with ddof 1, over `sqrt(N)`), in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// The standard error.
    pub error: f64,
    /// The 95 % interval: BCa, over documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

impl Estimate {
    /// A value with its standard error, and no interval.
    pub fn new(value: f64, error: f64) -> Self {
        Self { value, error, interval: None }
    }

    /// The mean of at least two values.
    pub(crate) fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let value = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|v| (v - value) * (v - value)).sum();
        Self::new(value, (squares / (count - 1.0) / count).sqrt())
    }

    /// Adds an independent error in quadrature: to the standard error, and, times the normal quantile, to either side of the
    /// interval.
    pub(crate) fn widened(mut self, error: f64) -> Self {
        const NORMAL_975: f64 = 1.959_963_984_540_054;
        let (value, side) = (self.value, NORMAL_975 * error);
        self.error = self.error.hypot(error);
        self.interval =
            self.interval.map(|[low, high]| [value - (value - low).hypot(side), value + (high - value).hypot(side)]);
        self
    }
}

/// With as many decimals as give the error two digits: `5.50 ± 0.71`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.error > 0.0 { (1.0 - self.error.log10().floor()).clamp(0.0, 4.0) as usize } else { 4 };
        write!(f, "{:.decimals$} ± {:.decimals$}", self.value, self.error)
    }
}
