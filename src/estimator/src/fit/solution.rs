//! The solution of a fit with a bias.

/// A fitted curve, `amplitude · L^exponent + bias`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Solution {
    pub(crate) amplitude: f64,
    pub(crate) exponent: f64,
    pub(crate) bias: f64,
    /// The standard errors of amplitude and exponent; `None` if the bias is at a bound, or if the data do not determine
    /// them.
    pub(crate) errors: Option<[f64; 2]>,
    /// `true` if the bias is at a bound.
    pub(crate) is_at_bound: bool,
}
