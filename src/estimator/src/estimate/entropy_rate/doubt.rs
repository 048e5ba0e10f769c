//! Reasons not to trust an extrapolated rate or an exponent.

use std::fmt;

use crate::estimate::entropy_rate::extrapolation::{RateFit, RateFits};
use crate::estimate::scatter::Sampling;
use crate::fit::{RateLaw, SIGNIFICANCE, is_at_exponent_bound};

/// The degrees of freedom from which intervals of rates are reliable: those of 20 texts. With 14 texts, 95 % intervals
/// covered the rate in 88 % of simulations, and with 4 texts of 40 windows in 87 %.
const ENOUGH_FREEDOM: usize = 19;

/// A reason why the data do not determine a rate or an exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateDoubt {
    /// There are too few texts for reliable intervals: fewer than 20, by their effective number.
    FewTexts,
    /// Too few resamples have a fit, or there are none, so that there is no interval.
    NoInterval,
    /// The data reject the law at the 5 % level.
    Rejected,
    /// A parameter is at a bound: the rate or the amplitude is 0, or the exponent is at the end of its search.
    AtBound,
    /// The interval of the exponent reaches the end of its search.
    Unbounded,
    /// The interval of the rate contains 0.
    Zero,
    /// The rate is significantly above the mean surprisal of the last octave, which is an upper bound on it.
    AboveTail,
    /// A constant describes the data as well, by AICc.
    Flat,
}

impl fmt::Display for RateDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RateDoubt::FewTexts => "there are fewer than 20 texts",
            RateDoubt::NoInterval => "there is no interval",
            RateDoubt::Rejected => "the data reject the law",
            RateDoubt::AtBound => "a parameter is at its bound",
            RateDoubt::Unbounded => "the interval of β has no end",
            RateDoubt::Zero => "the interval of h contains 0",
            RateDoubt::AboveTail => "h is above the last octave",
            RateDoubt::Flat => "a constant fits as well",
        })
    }
}

impl RateFits {
    /// Returns the reason why the data do not determine the rate of one of these fits; `None` if they do.
    pub fn rate_doubt(&self, fit: &RateFit) -> Option<RateDoubt> {
        let is_above = fit.below_tail.interval.is_some_and(|[_, high]| high < 0.0);
        let above = is_above.then_some(RateDoubt::AboveTail);
        let is_zero = fit.rate.token.interval.is_some_and(|[low, _]| low <= 1e-3 * fit.rate.token.value);
        let zero = is_zero.then_some(RateDoubt::Zero);
        let missing = fit.rate.token.interval.is_none().then_some(RateDoubt::NoInterval);
        let unbounded = is_unbounded(fit).then_some(RateDoubt::Unbounded);
        fundamental_doubt(fit).or(self.few_texts()).or(missing).or(unbounded).or(zero).or(above)
    }

    /// Returns the reason why the data do not determine the exponent of one of these fits; `None` if they do.
    pub fn exponent_doubt(&self, fit: &RateFit) -> Option<RateDoubt> {
        let is_flat = self.get(RateLaw::Constant).is_some_and(|constant| constant.aicc <= fit.aicc);
        let flat = is_flat.then_some(RateDoubt::Flat);
        let missing = fit.exponent.is_none_or(|exponent| exponent.interval.is_none());
        let missing = missing.then_some(RateDoubt::NoInterval);
        let unbounded = is_unbounded(fit).then_some(RateDoubt::Unbounded);
        fundamental_doubt(fit).or(flat).or(self.few_texts()).or(missing).or(unbounded)
    }

    fn few_texts(&self) -> Option<RateDoubt> {
        let is_reliable = self.sampling == Sampling::Clusters && self.freedom >= ENOUGH_FREEDOM;
        (!is_reliable).then_some(RateDoubt::FewTexts)
    }
}

fn fundamental_doubt(fit: &RateFit) -> Option<RateDoubt> {
    match fit {
        _ if fit.p < SIGNIFICANCE => Some(RateDoubt::Rejected),
        RateFit { is_at_bound: true, .. } => Some(RateDoubt::AtBound),
        _ => None,
    }
}

/// Returns `true` if the interval of the exponent reaches a bound of its search.
fn is_unbounded(fit: &RateFit) -> bool {
    let interval = fit.exponent.and_then(|exponent| exponent.interval);
    interval.is_some_and(|ends| ends.into_iter().any(is_at_exponent_bound))
}
