//! Separable least squares: linear combinations of functions fitted to correlated means, and the test of the fit.

use statrs::distribution::{ContinuousCDF, FisherSnedecor};

use crate::fit::whitening::{Whitening, dot};

/// Means with an estimate of their covariance.
#[derive(Clone, Debug)]
pub(crate) struct CovariedMeans {
    whitening: Whitening,
    /// The whitened means.
    means: Vec<f64>,
    /// The degrees of freedom of the covariance.
    freedom: f64,
}

/// The test of a fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FitTest {
    /// The number of means minus the number of parameters.
    pub(crate) dof: usize,
    /// The p-value.
    pub(crate) p: f64,
    /// The corrected Akaike information criterion.
    pub(crate) aicc: f64,
}

impl CovariedMeans {
    /// Creates means from their covariance, which is estimated with `freedom` degrees of freedom; `None` if it is
    /// singular.
    pub(crate) fn new(means: &[f64], covariance: &[Vec<f64>], freedom: usize) -> Option<Self> {
        let whitening = Whitening::new(covariance)?;
        Some(Self { means: whitening.apply(means), whitening, freedom: freedom as f64 })
    }

    /// Returns the whitened values of a function at the means, or of other means with the same covariance.
    pub(crate) fn whiten(&self, values: &[f64]) -> Vec<f64> {
        self.whitening.apply(values)
    }

    /// Returns the whitened means.
    pub(crate) fn whitened(&self) -> &[f64] {
        &self.means
    }

    /// Returns the best coefficients of functions, whose values at the means are whitened, and `T²`; `None` if the
    /// coefficients are not unique.
    pub(crate) fn best(&self, columns: &[Vec<f64>]) -> Option<(Vec<f64>, f64)> {
        let projections: Vec<f64> = columns.iter().map(|column| dot(column, &self.means)).collect();
        let coefficients = Whitening::new(&gram(columns))?.solve(&projections);
        let mut squares = 0.0;
        for (index, mean) in self.means.iter().enumerate() {
            let fitted: f64 = columns.iter().zip(&coefficients).map(|(column, factor)| factor * column[index]).sum();
            squares += (mean - fitted).powi(2);
        }
        squares.is_finite().then_some((coefficients, squares))
    }

    /// Tests a fit with this many parameters and this `T²` ([`LawFit`](crate::fit::LawFit)); `None` if there are not at
    /// least two more means than parameters, or if the covariance has too few degrees of freedom.
    pub(crate) fn test(&self, unknowns: usize, chi2: f64) -> Option<FitTest> {
        let (dof, unknowns) = (self.means.len() as f64 - unknowns as f64, unknowns as f64);
        if dof < 2.0 || self.freedom <= dof {
            return None;
        }
        let f = chi2 * (self.freedom - dof + 1.0) / (self.freedom * dof);
        let p = FisherSnedecor::new(dof, self.freedom - dof + 1.0).ok()?.sf(f);
        let aicc = (self.freedom + 1.0) * (chi2 / self.freedom).ln_1p()
            + 2.0 * unknowns
            + 2.0 * unknowns * (unknowns + 1.0) / (dof - 1.0);
        Some(FitTest { dof: dof as usize, p, aicc })
    }

    /// Returns the standard errors of parameters from the derivatives of the fitted values by each parameter; `None` if
    /// the data do not determine them.
    pub(crate) fn errors(&self, derivatives: &[Vec<f64>], chi2: f64) -> Option<Vec<f64>> {
        let unknowns = derivatives.len();
        let dof = self.means.len() as f64 - unknowns as f64;
        let scale = (1.0 + chi2 / self.freedom) * self.freedom / (self.freedom - dof);
        let columns: Vec<Vec<f64>> = derivatives.iter().map(|column| self.whiten(column)).collect();
        let inverse = Whitening::new(&gram(&columns))?;
        let variance = |index: usize| {
            let unit: Vec<f64> = (0..unknowns).map(|other| f64::from(u8::from(other == index))).collect();
            inverse.solve(&unit)[index]
        };
        Some((0..unknowns).map(|index| (scale * variance(index)).sqrt()).collect())
    }
}

/// Returns the products of all pairs of columns.
fn gram(columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    columns.iter().map(|a| columns.iter().map(|b| dot(a, b)).collect()).collect()
}
