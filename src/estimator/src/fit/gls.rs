//! Generalized least squares: laws fitted to correlated means, with a test of each law.

use serde::{Deserialize, Serialize};

use crate::fit::law::Law;
use crate::fit::search::minimize;
use crate::fit::separable::{CovariedMeans, FitTest};

/// The significance level at which a law is rejected.
pub(crate) const SIGNIFICANCE: f64 = 0.05;

/// The bounds of the exponents `β`.
const EXPONENTS: [f64; 2] = [-4.0, 4.0];

/// The bounds of the exponent `γ` of a saturating law.
const GROWTH: [f64; 2] = [0.05, 4.0];

/// A law fitted to estimates at several lengths by generalized least squares, and its test.
///
/// The fit minimizes `T² = rᵀ S⁻¹ r` over the parameters, where `r` are the residuals of the means, and `S` is their
/// covariance, estimated with `ν` degrees of freedom. If the law holds, `T² (ν - k + 1) / (ν k)` has an F distribution
/// with `k` and `ν - k + 1` degrees of freedom, where `k` is the number of means minus the number of parameters
/// (Hotelling, *The Generalization of Student's Ratio*, 1931). This is exact for normal errors and a linear law.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LawFit {
    /// The law.
    pub law: Law,
    /// The parameters, in the order of [`Law::parameters`]. Amplitudes and biases are in nats, lengths in tokens.
    pub parameters: Vec<f64>,
    /// The parameters' standard errors; `None` if a parameter is at a bound, or if the data do not determine it.
    ///
    /// They are the square roots of the diagonal of `(Jᵀ S⁻¹ J)⁻¹ (1 + T²/ν) ν/(ν - k)`, which accounts for the
    /// estimated covariance (Rao, *The Theory of Least Squares When the Parameters Are Stochastic*, 1965).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<f64>>,
    /// `T²`, the minimum. If the covariance were known, it would have a chi-squared distribution.
    pub chi2: f64,
    /// `k`: the number of means minus the number of parameters.
    pub dof: usize,
    /// The p-value of the test.
    pub p: f64,
    /// The corrected Akaike information criterion: `(ν + 1) ln(1 + T²/ν) + 2p + 2p(p+1)/(P-p-1)` for `p` parameters and
    /// `P` means. Only differences between laws fitted to the same means have a meaning; smaller is better.
    pub aicc: f64,
}

impl LawFit {
    /// Returns `true` if the data reject the law at the 5 % level.
    pub fn is_rejected(&self) -> bool {
        self.p < SIGNIFICANCE
    }

    /// Returns the law's value at `length`, in nats.
    pub fn at(&self, length: f64) -> f64 {
        self.law.at(&self.parameters, length)
    }
}

/// Means at several lengths, with an estimate of their covariance.
#[derive(Clone, Debug)]
pub(crate) struct CorrelatedMeans {
    /// The logarithms of the lengths.
    logs: Vec<f64>,
    /// The mean of `logs`.
    centre: f64,
    means: CovariedMeans,
}

impl CorrelatedMeans {
    /// Creates means at distinct lengths. `covariance` is the covariance of the means, estimated with `freedom` degrees
    /// of freedom; `None` if it is singular.
    pub(crate) fn new(lengths: &[f64], means: &[f64], covariance: &[Vec<f64>], freedom: usize) -> Option<Self> {
        let logs: Vec<f64> = lengths.iter().map(|length| length.ln()).collect();
        let centre = logs.iter().sum::<f64>() / logs.len() as f64;
        Some(Self { means: CovariedMeans::new(means, covariance, freedom)?, logs, centre })
    }

    /// Fits a law; `None` if there are not at least two more means than parameters, if the covariance has too few
    /// degrees of freedom for the test, or if there is no best fit.
    pub(crate) fn fit(&self, law: Law) -> Option<LawFit> {
        // The number of means decides whether there is a test, not the fit.
        self.means.test(law.parameters().len(), 0.0)?;
        let bounds = self.bounds(law);
        let shape =
            minimize(&bounds, &|shape: &[f64]| self.best(law, shape).map_or(f64::INFINITY, |(_, squares)| squares));
        let (coefficients, chi2) = self.best(law, &shape)?;
        let parameters = self.parameters(law, &shape, &coefficients);
        let is_at_bound =
            shape.iter().zip(&bounds).any(|(value, [low, high])| (value - low).min(high - value) < 1e-3 * (high - low));
        let errors = if is_at_bound { None } else { self.errors(law, &parameters, chi2) };
        let FitTest { dof, p, aicc } = self.means.test(parameters.len(), chi2)?;
        let is_finite = parameters.iter().all(|value| value.is_finite());
        is_finite.then_some(LawFit { law, parameters, errors, chi2, dof, p, aicc })
    }

    /// Returns the bounds of the law's shape: the parameters in which it is not linear.
    fn bounds(&self, law: Law) -> Vec<[f64; 2]> {
        let first = self.logs.iter().copied().fold(f64::INFINITY, f64::min);
        let last = self.logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match law {
            Law::Power | Law::PowerWithBias => vec![EXPONENTS],
            Law::Logarithmic => Vec::new(),
            Law::Saturating => vec![[first - 8_f64.ln(), last + 64_f64.ln()], GROWTH],
        }
    }

    /// Returns the functions whose linear combinations have this shape, at each length. The functions of a power law
    /// with bias are 1 and the Box-Cox transform `(u^β - 1)/β`, which is `ln u` at `β = 0`, so that all shapes can be
    /// compared.
    fn basis(&self, law: Law, shape: &[f64]) -> Vec<Vec<f64>> {
        let of = |function: &dyn Fn(f64) -> f64| self.logs.iter().map(|log| function(*log)).collect();
        match law {
            Law::Power => vec![of(&|log| (shape[0] * (log - self.centre)).exp())],
            Law::PowerWithBias => {
                let exponent = away_from_zero(shape[0]);
                vec![of(&|log| (exponent * (log - self.centre)).exp_m1() / exponent), of(&|_| 1.0)]
            }
            Law::Logarithmic => vec![of(&|log| log - self.centre), of(&|_| 1.0)],
            Law::Saturating => vec![of(&|log| -(-(shape[1] * (log - shape[0])).exp()).exp_m1())],
        }
    }

    /// Returns the best coefficients of the basis functions, and `T²`; `None` if they are not unique.
    fn best(&self, law: Law, shape: &[f64]) -> Option<(Vec<f64>, f64)> {
        let columns: Vec<Vec<f64>> = self.basis(law, shape).iter().map(|column| self.means.whiten(column)).collect();
        self.means.best(&columns)
    }

    /// Returns the law's parameters for a shape and the coefficients of its basis functions.
    fn parameters(&self, law: Law, shape: &[f64], coefficients: &[f64]) -> Vec<f64> {
        match law {
            Law::Power => vec![coefficients[0] * (-shape[0] * self.centre).exp(), shape[0]],
            Law::PowerWithBias => {
                let exponent = away_from_zero(shape[0]);
                let amplitude = coefficients[0] / exponent;
                vec![amplitude * (-exponent * self.centre).exp(), exponent, coefficients[1] - amplitude]
            }
            Law::Logarithmic => vec![coefficients[1] - coefficients[0] * self.centre, coefficients[0]],
            Law::Saturating => vec![coefficients[0], shape[0].exp(), shape[1]],
        }
    }

    /// Returns the parameters' standard errors; `None` if the data do not determine them.
    fn errors(&self, law: Law, parameters: &[f64], chi2: f64) -> Option<Vec<f64>> {
        let gradients: Vec<Vec<f64>> = self.logs.iter().map(|log| law.gradient(parameters, log.exp())).collect();
        let column = |index: usize| gradients.iter().map(|gradient| gradient[index]).collect::<Vec<f64>>();
        let columns: Vec<Vec<f64>> = (0..parameters.len()).map(column).collect();
        self.means.errors(&columns, chi2)
    }
}

/// Returns an exponent by which one can divide.
fn away_from_zero(exponent: f64) -> f64 {
    if exponent.abs() < 1e-9 { 1e-9 } else { exponent }
}
