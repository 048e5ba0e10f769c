//! Whitening: linear maps that make the errors of correlated means independent, each with variance 1.

/// The Cholesky factor of a covariance matrix: a lower triangular `C` with `C Cᵀ = S`.
#[derive(Clone, Debug)]
pub(crate) struct Whitening {
    /// The rows of `C`, each up to the diagonal.
    rows: Vec<Vec<f64>>,
}

impl Whitening {
    /// Factors a covariance matrix; `None` if it is not positive definite to within rounding.
    pub(crate) fn new(covariance: &[Vec<f64>]) -> Option<Self> {
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(covariance.len());
        for (i, given) in covariance.iter().enumerate() {
            let mut row: Vec<f64> = Vec::with_capacity(i + 1);
            for (j, above) in rows.iter().enumerate() {
                row.push((given[j] - dot(&row, above)) / above[j]);
            }
            let rest = given[i] - dot(&row, &row);
            // Far below the variance, the rest consists of rounding errors.
            if rest.is_nan() || rest <= 1e-12 * given[i] {
                return None;
            }
            row.push(rest.sqrt());
            rows.push(row);
        }
        Some(Self { rows })
    }

    /// Returns `C⁻¹ v`.
    pub(crate) fn apply(&self, v: &[f64]) -> Vec<f64> {
        let mut solved: Vec<f64> = Vec::with_capacity(v.len());
        for (i, row) in self.rows.iter().enumerate() {
            solved.push((v[i] - dot(row, &solved)) / row[i]);
        }
        solved
    }

    /// Returns the product of `C⁻ᵀ C⁻¹` (the inverse of the factored matrix) with `v`.
    pub(crate) fn solve(&self, v: &[f64]) -> Vec<f64> {
        let mut solved = self.apply(v);
        for i in (0..solved.len()).rev() {
            solved[i] /= self.rows[i][i];
            let (before, at) = solved.split_at_mut(i);
            for (value, entry) in before.iter_mut().zip(&self.rows[i]) {
                *value -= entry * at[0];
            }
        }
        solved
    }
}

/// Returns the sum of products of the entries that both vectors have.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitened_errors_are_independent() {
        let covariance = vec![vec![4.0, 2.0, 0.6], vec![2.0, 3.0, 0.4], vec![0.6, 0.4, 1.0]];
        let whitening = Whitening::new(&covariance).unwrap();
        let whitened: Vec<Vec<f64>> = covariance.iter().map(|row| whitening.apply(row)).collect();
        // C⁻¹ S C⁻ᵀ is the identity.
        for i in 0..3 {
            let column: Vec<f64> = whitened.iter().map(|row| row[i]).collect();
            for (j, value) in whitening.apply(&column).into_iter().enumerate() {
                assert!((value - f64::from(u8::from(i == j))).abs() < 1e-12, "{i}, {j}: {value}");
            }
            let solved = whitening.solve(&covariance[i]);
            assert!((0..3).all(|j| (solved[j] - f64::from(u8::from(i == j))).abs() < 1e-12), "{solved:?}");
        }
    }

    #[test]
    fn a_singular_covariance_cannot_be_whitened() {
        assert!(Whitening::new(&[vec![1.0, 2.0], vec![2.0, 4.0]]).is_none());
        assert!(Whitening::new(&[vec![0.0]]).is_none());
        assert!(Whitening::new(&[vec![f64::NAN]]).is_none());
    }
}
