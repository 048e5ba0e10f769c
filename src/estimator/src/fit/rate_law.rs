//! Laws of surprisal by position: the functions whose limit is the entropy rate.

use serde::{Deserialize, Serialize};

/// A law of the mean surprisal `h(n)` at the position `n`, counted from 1, with the limit `h` as `n -> ∞`.
///
/// Hilberg (1990) conjectured that the block entropy of a text is `H(n) = h n + A n^β`, with `0 < β < 1`, so that
/// `h(n) - h` falls as `n^(β-1)`. The other two laws are those that Takahira, Tanaka-Ishii and Dębowski, *Entropy Rate
/// Estimates for Natural Language* (Entropy 18:364, 2016) compare with it. They fit them to `H(n)/n`; here they describe
/// `h(n) = H(n) - H(n-1)`, which has the same limit and, for a power law, the same exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLaw {
    /// `h`: more context has no effect.
    Constant,
    /// `h + A n^(β-1)`.
    Power,
    /// `h + A n^(β-1) ln n`.
    PowerLog,
    /// `exp(A n^(β-1) + h')`, with `h = exp(h')`.
    Stretched,
}

impl RateLaw {
    /// All laws.
    pub const ALL: [RateLaw; 4] = [RateLaw::Constant, RateLaw::Power, RateLaw::PowerLog, RateLaw::Stretched];

    /// Returns the law's name in a table.
    pub fn name(self) -> &'static str {
        match self {
            RateLaw::Constant => "constant",
            RateLaw::Power => "power law",
            RateLaw::PowerLog => "power law with logarithm",
            RateLaw::Stretched => "stretched exponential",
        }
    }

    /// Returns the law's formula.
    pub fn formula(self) -> &'static str {
        match self {
            RateLaw::Constant => "h",
            RateLaw::Power => "h + A·n^(β-1)",
            RateLaw::PowerLog => "h + A·n^(β-1)·ln n",
            RateLaw::Stretched => "h·exp(A·n^(β-1))",
        }
    }

    /// Returns the number of parameters.
    pub fn parameters(self) -> usize {
        if self == RateLaw::Constant { 1 } else { 3 }
    }

    /// Returns `true` if the amplitude is information. The amplitude of a stretched exponential has no unit.
    pub(crate) fn has_information_amplitude(self) -> bool {
        self != RateLaw::Stretched
    }

    /// Returns the law's value at the position `n`, which counts from 1, with the parameters `h`, `A` and `β`. It is in
    /// the unit of `h`. `A` has the same unit, but none for [`Stretched`](Self::Stretched).
    ///
    /// ```
    /// use surprisal_estimator::RateLaw;
    ///
    /// assert_eq!(RateLaw::Power.at(2.0, 8.0, 0.5, 16.0), 4.0);
    /// assert_eq!(RateLaw::Stretched.at(2.0, 4.0, 0.5, 16.0), 2.0 * 1_f64.exp());
    /// ```
    pub fn at(self, rate: f64, amplitude: f64, exponent: f64, n: f64) -> f64 {
        let decay = amplitude * n.powf(exponent - 1.0);
        match self {
            RateLaw::Constant => rate,
            RateLaw::Power => rate + decay,
            RateLaw::PowerLog => rate + decay * n.ln(),
            RateLaw::Stretched => rate * decay.exp(),
        }
    }
}
