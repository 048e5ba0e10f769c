//! Bias-corrected and accelerated (BCa) bootstrap confidence intervals, from resampled clusters of documents.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::estimate::clusters::Clusters;
use crate::plan::Plan;
use crate::value::Estimate;

/// The confidence level of a report's intervals.
pub(crate) const CONFIDENCE_LEVEL: f64 = 0.95;

/// The minimum fraction of resamples for which a statistic must be defined to have an interval.
const NEEDED: f64 = 0.9;

/// Resampled means of several quantities; each independent observation has one value of each quantity.
///
/// All statistics of the means share the resamples, so the interval of a power law's exponent accounts for the
/// correlation between the fitted points.
///
/// ```
/// use surprisal_estimator::Bootstrap;
///
/// let rows: Vec<Vec<f64>> = (0..100).map(|i| vec![f64::from(i % 10)]).collect();
/// let bootstrap = Bootstrap::new(&rows, 2000, 1);
/// let [low, high] = bootstrap.interval(0.95, |means| Some(means[0])).unwrap();
/// assert!(low < 4.5 && 4.5 < high && high - low < 1.3);
/// ```
#[derive(Clone, Debug)]
pub struct Bootstrap<'a> {
    rows: &'a [Vec<f64>],
    means: Vec<f64>,
    resampled: Vec<Vec<f64>>,
    /// The degrees of freedom of the variance between rows.
    freedom: f64,
}

impl<'a> Bootstrap<'a> {
    /// Draws `resamples` resamples with replacement, each with as many rows as `rows`. There is one row per independent
    /// observation (a document, or the mean of a cluster of documents); all rows have the same length.
    pub fn new(rows: &'a [Vec<f64>], resamples: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The choice of partners uses the same seed; draw from a different stream of random numbers.
        rng.set_stream(1);
        let resample = |_| {
            let mut counts = vec![0_u32; rows.len()];
            for _ in rows {
                counts[rng.random_range(0..rows.len())] += 1;
            }
            mean(rows, |row| f64::from(counts[row]), rows.len() as f64)
        };
        let resampled = (0..resamples).map(resample).collect();
        let freedom = rows.len() as f64 - 1.0;
        Self { rows, means: mean(rows, |_| 1.0, rows.len() as f64), resampled, freedom }
    }

    /// Draws a plan's resamples of one row per cluster, whose degrees of freedom are those of the clusters.
    pub(crate) fn of_clusters(rows: &'a [Vec<f64>], clusters: &Clusters, plan: &Plan) -> Self {
        Self { freedom: clusters.freedom(), ..Self::new(rows, plan.design().resamples, plan.design().seed) }
    }

    /// Returns the means over all rows.
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// Returns the standard error of the mean of one quantity.
    pub(crate) fn error(&self, column: usize) -> f64 {
        Estimate::of(&self.rows.iter().map(|row| row[column]).collect::<Vec<f64>>()).error
    }

    /// Returns the means of each resample.
    pub fn resampled(&self) -> &[Vec<f64>] {
        &self.resampled
    }

    /// Returns the BCa interval of a statistic of the means, at the confidence level `level`. `None` if there are no
    /// resamples, or if the statistic is undefined for the full set of rows, for any leave-one-out set, or for
    /// more than a tenth of the resamples.
    ///
    /// Efron, *Better Bootstrap Confidence Intervals* (1987): the ends are the quantiles
    /// `Φ(z0 + (z0 + z) / (1 - a (z0 + z)))` of the resampled statistic. `z0` is the normal quantile of the fraction of
    /// resampled values below the statistic (ties count half), and `a` comes from the skewness of the leave-one-out
    /// values. `z` is `sqrt(n/(n-1))` times the quantile of Student's t distribution with `n - 1` degrees of freedom
    /// (fewer for rows of uneven weight) at the tail probability of that end, for `n` rows, instead of the normal
    /// quantile: intervals from few rows would be too narrow otherwise (Hesterberg, *What Teachers Should Know About the
    /// Bootstrap*, 2015, section 5.3).
    /// Quantiles between two values are interpolated linearly. For rows of uneven weight, the interval is extended to that
    /// of Student's t distribution with the error of the jackknife.
    pub fn interval(&self, level: f64, statistic: impl Fn(&[f64]) -> Option<f64>) -> Option<[f64; 2]> {
        let value = statistic(&self.means)?;
        let values = self.of_resamples(&statistic)?;
        let left_out: Option<Vec<f64>> = (0..self.rows.len()).map(|row| statistic(&self.without(row))).collect();
        self.ends(level, value, values, &left_out?)
    }

    /// Returns statistics of the means that are computed together, each with the standard error of the jackknife and the
    /// interval of [`interval`](Self::interval). `None` if they are undefined for the full set of rows or for any
    /// leave-one-out set. There are no intervals if they are undefined for more than a tenth of the resamples.
    ///
    /// The error is `sqrt((n-1)/n Σ (θ_i - mean)²)` for `n` rows, where `θ_i` is the statistic without row `i` (Efron
    /// and Stein, *The Jackknife Estimate of Variance*, 1981).
    pub(crate) fn estimates(
        &self,
        level: f64,
        statistics: impl Fn(&[f64]) -> Option<Vec<f64>>,
    ) -> Option<Vec<Estimate>> {
        let values = statistics(&self.means)?;
        let resampled = self.of_resamples(&statistics);
        let left_out: Option<Vec<Vec<f64>>> = (0..self.rows.len()).map(|row| statistics(&self.without(row))).collect();
        let left_out = left_out?;
        let count = self.rows.len() as f64;
        let estimate = |(index, value): (usize, f64)| {
            let column = |rows: &[Vec<f64>]| rows.iter().map(|row| row[index]).collect::<Vec<f64>>();
            let left_out = column(&left_out);
            let error = Estimate::of(&left_out).error * (count - 1.0);
            let interval = resampled.as_deref().and_then(|rows| self.ends(level, value, column(rows), &left_out));
            Estimate { interval, ..Estimate::new(value, error) }
        };
        Some(values.into_iter().enumerate().map(estimate).collect())
    }

    /// Returns the statistic of each resample for which it is defined; `None` if these are too few.
    fn of_resamples<T>(&self, statistic: impl Fn(&[f64]) -> Option<T>) -> Option<Vec<T>> {
        let values: Vec<T> = self.resampled.iter().filter_map(|means| statistic(means)).collect();
        let is_enough = !values.is_empty() && values.len() as f64 >= NEEDED * self.resampled.len() as f64;
        is_enough.then_some(values)
    }

    /// Returns the ends of the interval of a statistic from its values for the resamples and the leave-one-out sets.
    fn ends(&self, level: f64, value: f64, mut values: Vec<f64>, left_out: &[f64]) -> Option<[f64; 2]> {
        values.sort_unstable_by(f64::total_cmp);
        let acceleration = acceleration(left_out);
        let normal = Normal::standard();
        let bias = normal.inverse_cdf(fraction_below(&values, value));
        let rows = self.rows.len() as f64;
        let student = StudentsT::new(0.0, (rows / (rows - 1.0)).sqrt(), self.freedom).ok()?;
        let end = |tail: f64| {
            let z = bias + student.inverse_cdf(tail);
            quantile(&values, normal.cdf(bias + z / (1.0 - acceleration * z)))
        };
        let [low, high] = [end(0.5 - 0.5 * level), end(0.5 + 0.5 * level)];
        if self.freedom > rows - 1.5 {
            return Some([low, high]);
        }
        // One row of large weight makes the resamples coarse, and their quantiles too close to each other.
        let error = Estimate::of(left_out).error * (rows - 1.0);
        let side = StudentsT::new(0.0, error.max(f64::MIN_POSITIVE), self.freedom).ok()?.inverse_cdf(0.5 + 0.5 * level);
        Some([low.min(value - side), high.max(value + side)])
    }

    /// Returns the means over all rows except one.
    fn without(&self, row: usize) -> Vec<f64> {
        let count = self.rows.len() as f64;
        let pairs = self.means.iter().zip(&self.rows[row]);
        pairs.map(|(mean, value)| (mean * count - value) / (count - 1.0)).collect()
    }
}

fn mean(rows: &[Vec<f64>], weight: impl Fn(usize) -> f64, total: f64) -> Vec<f64> {
    let mut sums = vec![0.0; rows.first().map_or(0, Vec::len)];
    for (index, row) in rows.iter().enumerate() {
        let weight = weight(index);
        if weight > 0.0 {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += weight * value;
            }
        }
    }
    sums.iter().map(|sum| sum / total).collect()
}

/// Returns the fraction of sorted values below `value`; ties count half. The fraction is kept at least `0.5 / count`
/// away from 0 and 1, so that its normal quantile is finite.
fn fraction_below(values: &[f64], value: f64) -> f64 {
    let below = values.partition_point(|v| *v < value) as f64;
    let ties = values.partition_point(|v| *v <= value) as f64 - below;
    let count = values.len() as f64;
    ((below + 0.5 * ties) / count).clamp(0.5 / count, 1.0 - 0.5 / count)
}

/// Returns the acceleration `Σ d³ / (6 (Σ d²)^1.5)`, where each `d` is the mean of the leave-one-out values minus one
/// of them.
fn acceleration(left_out: &[f64]) -> f64 {
    let mean = left_out.iter().sum::<f64>() / left_out.len() as f64;
    let power = |n: i32| left_out.iter().map(|value| (mean - value).powi(n)).sum::<f64>();
    let spread = power(2).powf(1.5);
    if spread > 0.0 { power(3) / (6.0 * spread) } else { 0.0 }
}

/// Returns the quantile of sorted values at the fraction `part`: 0 for the first value, 1 for the last.
fn quantile(values: &[f64], part: f64) -> f64 {
    let place = part.clamp(0.0, 1.0) * (values.len() - 1) as f64;
    let (low, share) = (place.floor() as usize, place.fract());
    let high = (low + 1).min(values.len() - 1);
    values[low] + share * (values[high] - values[low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_matches_the_normal_approximation() {
        let rows: Vec<Vec<f64>> = (0..400).map(|i| vec![(f64::from(i) - 199.5) / 100.0]).collect();
        let [low, high] = Bootstrap::new(&rows, 20_000, 3).interval(0.95, |means| Some(means[0])).unwrap();
        let deviation = (rows.iter().map(|row| row[0] * row[0]).sum::<f64>() / 400.0 / 400.0).sqrt();
        assert!((low + 1.96 * deviation).abs() < 0.05 * deviation, "{low}, {deviation}");
        assert!((high - 1.96 * deviation).abs() < 0.05 * deviation, "{high}, {deviation}");
    }

    #[test]
    fn a_skewed_mean_has_a_skewed_interval() {
        let rows: Vec<Vec<f64>> = (0..50).map(|i| vec![(f64::from(i) / 8.0).exp()]).collect();
        let bootstrap = Bootstrap::new(&rows, 4000, 3);
        let mean = bootstrap.means()[0];
        let [low, high] = bootstrap.interval(0.95, |means| Some(means[0])).unwrap();
        assert!(high - mean > 1.3 * (mean - low), "{low} {mean} {high}");
        // BCa respects transformations: the interval of the logarithm is the logarithm of the interval.
        let logs = bootstrap.interval(0.95, |means| Some(means[0].ln())).unwrap();
        assert!((logs[0] - low.ln()).abs() < 0.02 && (logs[1] - high.ln()).abs() < 0.02);
    }

    /// Statistics that are computed together have the same intervals as each alone; the jackknife error of a mean is its
    /// standard error.
    #[test]
    fn estimates_have_jackknife_errors_and_the_same_intervals() {
        let rows: Vec<Vec<f64>> = (0..30).map(|i| vec![(f64::from(i) / 9.0).exp(), f64::from(i % 7)]).collect();
        let bootstrap = Bootstrap::new(&rows, 500, 3);
        let ratio = |means: &[f64]| Some(means[0] / means[1]);
        let found = bootstrap.estimates(0.95, |means| Some(vec![means[0], means[0] / means[1]])).unwrap();
        assert!((found[0].error - bootstrap.error(0)).abs() < 1e-12, "{found:?}");
        assert_eq!(found[1].interval, bootstrap.interval(0.95, ratio));
        assert_eq!(bootstrap.estimates(0.95, |_| None), None);
        let without = Bootstrap::new(&rows, 0, 3).estimates(0.95, |means| Some(vec![means[0]])).unwrap();
        assert_eq!((without[0].error, without[0].interval), (found[0].error, None));
    }

    #[test]
    fn an_undefined_statistic_has_no_interval() {
        let rows = vec![vec![1.0], vec![2.0], vec![4.0]];
        assert_eq!(Bootstrap::new(&rows, 0, 1).interval(0.95, |means| Some(means[0])), None);
        let bootstrap = Bootstrap::new(&rows, 100, 1);
        assert_eq!(bootstrap.interval(0.95, |_| None), None);
        assert_eq!(bootstrap.interval(0.95, |means| (means[0] > 2.0).then_some(1.0)), None);
        assert_eq!(bootstrap.interval(0.95, |_| Some(3.0)), Some([3.0, 3.0]));
    }
}
