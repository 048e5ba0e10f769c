//! Stationary Gaussian processes whose bipartite mutual information is a power law in closed form: a ground truth whose
//! symbols are real numbers.

use std::f64::consts::TAU;

use rand::{Rng, RngExt};

use crate::error::Error;
use crate::process::Process;

/// The maximum sequence length; processing a longer sequence can take more than an hour.
const MAX_LENGTH: usize = 1 << 20;

/// A stationary Gaussian process of unit variance, given by its partial autocorrelations `φ_1, φ_2, ...`.
///
/// Every sequence with `|φ_k| < 1` defines such a process, and every process has exactly one such sequence
/// (Barndorff-Nielsen and Schou, *On the parametrization of autoregressive models by partial autocorrelations*, 1973).
/// Given its past, `x_t` is normal with variance `v_t = Π_(k<=t) (1 - φ_k²)`, so log-determinants are sums:
/// `ln det Σ_n = Σ_(t<n) ln v_t`. This process has
///
/// `-½ ln(1 - φ_k²) = strength · k^(exponent - 2)`, with all `φ_k > 0`,
///
/// so the mutual information between two adjacent segments of `n` values is
/// `I(n, n) = strength · Σ_(k=1..2n-1) min(k, 2n-k) k^(exponent-2)`, which grows as `n^exponent` (as `ln n` for
/// exponent 0).
///
/// The "log-probabilities" are log-densities, so they can be positive. Differences of log-densities have the same
/// meaning as differences of log-probabilities.
///
/// ```
/// use surprisal_estimator::{Gaussian, Process};
///
/// let process = Gaussian::new(4096, 0.5, 0.1)?;
/// let growth = (process.mutual_information(2048, 2048) / process.mutual_information(1024, 1024)).log2();
/// assert!((growth - 0.5).abs() < 0.02);
/// assert!(process.mutual_information(8, 8) < process.vclub_limit(8, 8));
/// # Ok::<(), surprisal_estimator::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gaussian {
    exponent: f64,
    strength: f64,
    /// Partial autocorrelations: `partials[k]` = φ_(k+1).
    partials: Vec<f64>,
    /// Log-variances, in nats: `ln_variances[t]` = ln v_t.
    ln_variances: Vec<f64>,
}

impl Gaussian {
    /// Creates a process for sequences of at most `length` values.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `length` is in 1..=2^20, `exponent` in `0..=1`, and `strength` in `(0, 10]`.
    pub fn new(length: usize, exponent: f64, strength: f64) -> Result<Self, Error> {
        if !(1..=MAX_LENGTH).contains(&length) {
            return Err(Error::invalid("length", length, format!("from 1 to {MAX_LENGTH}")));
        }
        if !(0.0..=1.0).contains(&exponent) {
            return Err(Error::invalid("exponent", exponent, "from 0 to 1"));
        }
        if !(strength > 0.0 && strength <= 10.0) {
            return Err(Error::invalid("strength", strength, "above 0 and at most 10"));
        }
        // -ln(1 - φ_k²).
        let loss = |k: usize| 2.0 * strength * (k as f64).powf(exponent - 2.0);
        let partials = (1..length).map(|k| (-(-loss(k)).exp_m1()).sqrt()).collect();
        let mut ln_variances = Vec::with_capacity(length);
        let mut ln_variance = 0.0;
        for t in 0..length {
            ln_variance -= if t == 0 { 0.0 } else { loss(t) };
            ln_variances.push(ln_variance);
        }
        Ok(Self { exponent, strength, partials, ln_variances })
    }

    /// Returns the maximum length of a sequence.
    pub fn length(&self) -> usize {
        self.ln_variances.len()
    }

    /// Returns `ln det Σ_n` of `n` consecutive values, in nats.
    ///
    /// # Panics
    /// If `n` is more than [`length`](Self::length).
    pub fn ln_determinant(&self, n: usize) -> f64 {
        self.ln_variances[..n].iter().sum()
    }

    /// Returns the correlation of two values at each distance in `0..n`, by the Durbin-Levinson recursion.
    ///
    /// # Panics
    /// If `n` is more than [`length`](Self::length).
    pub fn autocorrelations(&self, n: usize) -> Vec<f64> {
        let mut correlations = vec![1.0];
        self.for_each_predictor(n.saturating_sub(1), |t, predictor| {
            let known: f64 = predictor.iter().zip(correlations.iter().rev()).map(|(a, r)| a * r).sum();
            correlations.push(known + self.partials[t] * self.ln_variances[t].exp());
        });
        correlations.truncate(n);
        correlations
    }

    /// Returns the two-point mutual information at distance `d`, in nats: `-½ ln(1 - ρ_d²)`.
    ///
    /// # Panics
    /// If `d` is 0, or not less than [`length`](Self::length).
    pub fn two_point(&self, d: usize) -> f64 {
        assert!(d > 0, "two-point information is infinite at distance 0");
        let correlation = self.autocorrelations(d + 1)[d];
        -0.5 * (-correlation * correlation).ln_1p()
    }

    /// Returns `KL(self || model)` over `n` consecutive values, in nats: `½ Σ_t [ln(w_t / v_t) + E(e_t²) / w_t - 1]`,
    /// where `v_t` are the prediction variances of this process, `w_t` those of the model, and `e_t` the model's
    /// prediction errors.
    ///
    /// # Panics
    /// If `n` is more than the [`length`](Self::length) of either process.
    pub fn divergence(&self, model: &Gaussian, n: usize) -> f64 {
        let r = self.autocorrelations(n);
        let mut total = 0.0;
        model.for_each_predictor(n, |t, predictor| {
            let weights: Vec<f64> = std::iter::once(1.0).chain(predictor.iter().map(|a| -a)).collect();
            let square = variance_of_sum(&weights, &r);
            let ln_model = model.ln_variances[t];
            total += 0.5 * (ln_model - self.ln_variances[t] + square / ln_model.exp() - 1.0);
        });
        total
    }

    /// Visits each `t` in `0..n`, with the coefficients of `x_(t-1), x_(t-2), ..., x_0` in the best linear prediction
    /// of `x_t`.
    fn for_each_predictor(&self, n: usize, mut visit: impl FnMut(usize, &[f64])) {
        let mut predictor: Vec<f64> = Vec::with_capacity(n);
        for t in 0..n {
            visit(t, &predictor);
            if let Some(&partial) = self.partials.get(t) {
                let next: Vec<f64> =
                    predictor.iter().zip(predictor.iter().rev()).map(|(a, b)| a - partial * b).collect();
                predictor = next;
                predictor.push(partial);
            }
        }
    }

    fn check(&self, history: &[f64], values: &[f64]) -> Result<(), Error> {
        let length = history.len() + values.len();
        if length > self.length() {
            return Err(Error::invalid("sequence length", length, format!("at most {}", self.length())));
        }
        match history.iter().chain(values).find(|value| !value.is_finite()) {
            Some(value) => Err(Error::invalid("value", value, "finite")),
            None => Ok(()),
        }
    }
}

/// A lattice filter, which converts between values and prediction errors, one value at a time. The value `x_t` takes
/// `O(t)` time.
struct Lattice<'a> {
    partials: &'a [f64],
    /// The backward prediction errors: for each order k, the error of predicting the value k positions back from the k
    /// values after that value.
    backward: Vec<f64>,
}

impl Lattice<'_> {
    /// Returns the error of predicting the next value from all values before it.
    fn error(&mut self, value: f64) -> f64 {
        let mut forward = value;
        let mut carried = value;
        for (partial, backward) in self.partials.iter().zip(&mut self.backward) {
            let next = *backward - partial * forward;
            forward -= partial * *backward;
            *backward = std::mem::replace(&mut carried, next);
        }
        self.backward.push(carried);
        forward
    }

    /// Returns the next value, given its prediction error.
    fn value(&mut self, error: f64) -> f64 {
        let mut forward = error;
        let order = self.backward.len();
        self.backward.push(0.0);
        for k in (0..order).rev() {
            forward += self.partials[k] * self.backward[k];
            self.backward[k + 1] = self.backward[k] - self.partials[k] * forward;
        }
        self.backward[0] = forward;
        forward
    }
}

impl Process for Gaussian {
    type Symbol = f64;

    fn name(&self) -> String {
        format!("Gaussian process, exponent {}, strength {}", self.exponent, self.strength)
    }

    fn fingerprint(&self) -> String {
        format!("gaussian, f64, exponent {}, strength {}", self.exponent, self.strength)
    }

    fn longest(&self) -> usize {
        self.length()
    }

    /// Samples a sequence of `length` values.
    ///
    /// # Panics
    /// If `length` is more than [`Gaussian::length`].
    fn sample(&self, length: usize, rng: &mut impl Rng) -> Vec<f64> {
        let mut lattice = Lattice { partials: &self.partials, backward: Vec::with_capacity(length) };
        let deviations = self.ln_variances[..length].iter().map(|ln| (0.5 * ln).exp());
        deviations.map(|deviation| lattice.value(deviation * normal(rng))).collect()
    }

    /// Returns `ln p(values[t] | history, values[..t])` for each `t`: log-densities in nats.
    fn logprobs(&self, history: &[f64], values: &[f64]) -> Result<Vec<f64>, Error> {
        self.check(history, values)?;
        let mut lattice = Lattice { partials: &self.partials, backward: Vec::new() };
        let errors: Vec<f64> = history.iter().chain(values).map(|&value| lattice.error(value)).collect();
        let density = |(error, ln): (&f64, &f64)| -0.5 * (TAU.ln() + ln + error * error / ln.exp());
        Ok(errors.iter().zip(&self.ln_variances).skip(history.len()).map(density).collect())
    }

    fn log_probabilities(&self, values: &[f64]) -> Result<Vec<f64>, Error> {
        self.logprobs(&[], values)
    }

    /// Returns `½ (ln det Σ_m + ln det Σ_n - ln det Σ_(m+n))`, in nats.
    ///
    /// # Panics
    /// If `m + n` is more than [`Gaussian::length`].
    fn mutual_information(&self, m: usize, n: usize) -> f64 {
        let pairs = self.ln_variances[..n].iter().zip(&self.ln_variances[m..m + n]);
        0.5 * pairs.map(|(alone, given)| alone - given).sum::<f64>()
    }

    /// Returns the mutual information itself, because the densities are exact.
    fn direct_limit(&self, m: usize, n: usize) -> f64 {
        self.mutual_information(m, n)
    }

    /// Returns `tr(Σ_(y|x)⁻¹ Σ_y) - n`, in nats, computed as `Σ_t (E_independent(e_t²) - v_t) / 2v_t` over the
    /// prediction errors in `y`.
    ///
    /// Each `e_t` has the form `a·x + b·y`, with mean square `v_t`. If `x` and `y` are independent, the mean square is
    /// smaller by `2 a·Σ_xy·b`. Takes `O((m + n)² + m n²)` time.
    ///
    /// # Panics
    /// If `m + n` is more than [`Gaussian::length`].
    fn vclub_limit(&self, m: usize, n: usize) -> f64 {
        let r = self.autocorrelations(m + n);
        let mut total = 0.0;
        self.for_each_predictor(m + n, |t, predictor| {
            if t < m {
                return;
            }
            // predictor[j] is the coefficient of x_(t-1-j): the first t - m coefficients belong to y, the others to x.
            let y_weights: Vec<f64> = std::iter::once(-1.0).chain(predictor[..t - m].iter().copied()).collect();
            let mut covariance = 0.0;
            for (j, a) in predictor.iter().enumerate().skip(t - m) {
                covariance += a * y_weights.iter().enumerate().map(|(i, b)| b * r[j + 1 - i]).sum::<f64>();
            }
            total -= covariance / self.ln_variances[t].exp();
        });
        total
    }
}

/// Returns the variance of a weighted sum of consecutive values with autocorrelations `r`: `Σ_ij a_i a_j r_|i-j|`.
fn variance_of_sum(weights: &[f64], r: &[f64]) -> f64 {
    let mut variance = 0.0;
    for (i, a) in weights.iter().enumerate() {
        variance += a * weights.iter().enumerate().map(|(j, b)| b * r[i.abs_diff(j)]).sum::<f64>();
    }
    variance
}

/// Draws a standard normal number by the Box-Muller transform.
fn normal(rng: &mut impl Rng) -> f64 {
    let (radius, angle): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
}

#[cfg(test)]
mod tests;
