//! Convergence of the estimates with the number of texts, and the difference between the two halves of a corpus.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::estimate::clusters::Clusters;
use crate::estimate::contributions::{Contributions, column};
use crate::estimate::series::Series;
use crate::plan::{Plan, Point};
use crate::value::Estimate;

/// The stream of random numbers that orders the texts. The choice of partners and the bootstrap use others of the same
/// seed.
const STREAM: u64 = 2;

/// The fewest texts of a half, which its error needs.
const FEWEST: usize = 2;

/// The estimates of one series at one point from the first texts, in a random order of the texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Convergence {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The length `L`: tokens in `x` and `y` together.
    pub length: usize,
    /// The split `ℓ`: tokens in `x`.
    pub split: usize,
    /// The estimator.
    pub series: Series,
    /// The estimates from 2, 4, 8, ... texts, and from all.
    pub points: Vec<ConvergencePoint>,
}

/// An estimate from some of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvergencePoint {
    /// The number of texts; of documents, if all are from one text.
    pub texts: usize,
    /// The mean over these texts, its standard error, and its 95 % interval of Student's t distribution.
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// The direct estimate from the second half of the texts, in the order of the corpus, minus that from the first half.
///
/// If the texts of the corpus are a homogeneous sample, the difference is 0 within its error. Both halves are
/// independent, so this is Welch's test: the squares of the halves' errors over texts add up, and the degrees of freedom
/// are Welch's and Satterthwaite's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HalvesDifference {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The length `L`: tokens in `x` and `y` together.
    pub length: usize,
    /// The numbers of texts in the halves; of documents, if all are from one text.
    pub texts: [usize; 2],
    /// The difference, with its standard error and its 95 % interval.
    #[serde(flatten)]
    pub difference: Estimate,
    /// The degrees of freedom.
    pub freedom: f64,
    /// The probability of a difference that is at least as large in either direction, if the halves have the same mean.
    pub p: f64,
}

/// Returns the convergence of each estimator at each point.
///
/// The estimate from `n` texts is the mean of their values: the rows of clusters, whose mean over all texts is the
/// estimate. Its error is their standard deviation divided by `√n`. If all texts have the same number of documents, the
/// value of a text is the mean of its documents; otherwise it is the estimate plus the text's influence on it. The value
/// of a text for vCLUB includes its influence as a context of other texts, which may be outside of the `n` texts. An
/// error that more texts do not lower (`constant_error`, by point and estimator) is added in quadrature.
pub(crate) fn convergence(
    plan: &Plan,
    contributions: &[Contributions],
    clusters: &Clusters,
    rows: &[Vec<f64>],
    constant_error: impl Fn(usize, usize) -> f64,
) -> Vec<Convergence> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(plan.design().seed);
    rng.set_stream(STREAM);
    order.shuffle(&mut rng);
    let mut all = Vec::new();
    for (index, (point, of_point)) in plan.points().iter().zip(contributions).enumerate() {
        for (estimator, &series) in Series::ESTIMATORS.iter().enumerate() {
            if of_point.of(estimator).is_none() {
                continue;
            }
            let values: Vec<f64> = order.iter().map(|&row| rows[row][column(index, estimator)]).collect();
            let from_first = |texts: usize| {
                let freedom = clusters.freedom_of(order[..texts].iter().copied());
                let estimate = Estimate::of(&values[..texts]).with_t_interval(freedom);
                ConvergencePoint { texts, estimate: estimate.widened(constant_error(index, estimator)) }
            };
            let (ratio, length, split) = (point.ratio, point.length(), point.split);
            let points = counts(values.len()).into_iter().map(from_first).collect();
            all.push(Convergence { ratio, length, split, series, points });
        }
    }
    all
}

/// Returns 2, 4, 8, ... up to `all`, and `all` itself.
fn counts(all: usize) -> Vec<usize> {
    let mut counts: Vec<usize> =
        std::iter::successors(Some(2), |count| Some(2 * count)).take_while(|&count| count < all).collect();
    counts.push(all);
    counts
}

/// Returns the differences between the halves of the corpus at the longest `L` of each ratio; none for fewer than four
/// texts.
pub(crate) fn halves(points: &[Point], contributions: &[Contributions], clusters: &Clusters) -> Vec<HalvesDifference> {
    let mut differences: Vec<HalvesDifference> = Vec::new();
    if clusters.count() < 2 * FEWEST {
        return differences;
    }
    for (index, (point, of_point)) in points.iter().zip(contributions).enumerate() {
        let is_longest = points.get(index + 1).is_none_or(|next| next.ratio != point.ratio);
        if is_longest {
            differences.extend(HalvesDifference::new(point, &of_point.direct, clusters));
        }
    }
    differences
}

impl HalvesDifference {
    /// Compares the halves of the documents' values; `None` if neither half has any variance.
    fn new(point: &Point, values: &[f64], clusters: &Clusters) -> Option<Self> {
        let middle = clusters.count() / 2;
        let end = (0..values.len()).take_while(|&document| clusters.of_document(document) < middle).count();
        let half = |documents: std::ops::Range<usize>| {
            let units = Clusters::of_texts(documents.clone().map(|document| clusters.of_document(document)));
            (units.count(), units.freedom(), units.estimate(&values[documents]))
        };
        let [(count, freedom, first), (other_count, other_freedom, second)] = [half(0..end), half(end..values.len())];
        let error = first.error.hypot(second.error);
        if error == 0.0 {
            return None;
        }
        let share = |estimate: Estimate, freedom: f64| (estimate.error / error).powi(4) / freedom;
        let freedom = 1.0 / (share(first, freedom) + share(second, other_freedom));
        let value = second.value - first.value;
        let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
        Some(Self {
            ratio: point.ratio,
            length: point.length(),
            texts: [count, other_count],
            difference: Estimate::new(value, error).with_t_interval(freedom),
            freedom,
            p: 2.0 * student.cdf(-(value / error).abs()),
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::estimate::{Correction, Estimates, PointEstimate};
    use crate::plan::{Design, PlannedQuery};
    use crate::statistics::{EntropyMethod, NgramEntropy};

    #[test]
    fn counts_double_up_to_all() {
        assert_eq!([2, 3, 4, 24].map(counts), [vec![2], vec![2, 3], vec![2, 4], vec![2, 4, 8, 16, 24]]);
    }

    /// From SciPy: `ttest_ind([5, 9, 1.5, 4], [1, 3, 2], equal_var=False)`, on the means of texts.
    #[test]
    fn halves_are_compared_by_welchs_test() {
        let point = Point { ratio: 2, split: 4 };
        let values = [1.0, 3.0, 2.0, 5.0, 9.0, 1.5, 4.0];
        let found = HalvesDifference::new(&point, &values, &Clusters::of_texts(0..7)).unwrap();
        assert_eq!((found.ratio, found.length, found.texts), (2, 8, [3, 4]));
        let [value, error] = [found.difference.value, found.difference.error];
        assert!((value - 2.875).abs() < 1e-12 && (error - 1.663_016_836_956_259).abs() < 1e-12, "{error}");
        assert!((found.freedom - 3.772_339_486_159_486).abs() < 1e-9, "{}", found.freedom);
        assert!((found.p - 0.163_214_592_543_999).abs() < 1e-6, "{}", found.p);
        let [low, high] = found.difference.interval.unwrap();
        assert!((low + 1.854_273_681_337).abs() < 1e-6 && (high - 7.604_273_681_337).abs() < 1e-6, "{low} {high}");
        // Two windows for each text change nothing if they are equal.
        let twice: Vec<f64> = values.iter().flat_map(|&value| [value, value]).collect();
        let clustered = HalvesDifference::new(&point, &twice, &Clusters::of_texts((0..14).map(|d| d / 2))).unwrap();
        assert!((clustered.difference.error - error).abs() < 1e-12 && (clustered.p - found.p).abs() < 1e-12);
        // Texts with different numbers of windows have the weights of their windows in the means.
        let texts = [0, 0, 0, 1, 2, 3, 3];
        let unequal = HalvesDifference::new(&point, &values, &Clusters::of_texts(texts)).unwrap();
        assert!((unequal.difference.value - (14.5 / 3.0 - 11.0 / 4.0)).abs() < 1e-12);
        assert_eq!(HalvesDifference::new(&point, &[1.0; 7], &Clusters::of_texts(0..7)), None);
    }

    /// The last point is the report's estimate with its error; the others are means of texts in the shuffled order.
    #[test]
    fn convergence_ends_at_the_estimate() {
        for (per_text, negatives, texts) in [(1, 1, 20), (2, 8, 10), (20, 8, 20)] {
            let design = Design { splits: vec![2, 4], ratios: vec![2, 3], negatives, seed: 5, ..Design::default() };
            let plan = Plan::of_texts((0..20).map(|document| document / per_text), design).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let answer =
                |query: &PlannedQuery| (0..query.target_length()).map(|_| -2.0 * rng.random::<f32>()).collect();
            let answers: Vec<Vec<f32>> = plan.queries().iter().map(answer).collect();
            let method = EntropyMethod::PlugIn;
            let entropy = NgramEntropy { n: 1, method, nats: 2.0, error: 0.3, total: 9, distinct: 5, bias: None };
            let estimates = Estimates::new(&plan, &answers, Some(Correction::new(entropy))).unwrap();
            assert!(estimates.convergence.len() >= 4 * if negatives > 1 { 5 } else { 3 });
            for found in &estimates.convergence {
                let at = |point: &&PointEstimate| (point.ratio, point.length) == (found.ratio, found.length);
                let expected = estimates.points.iter().find(at).unwrap().get(found.series).unwrap();
                let last = found.points.last().unwrap();
                assert_eq!(last.texts, texts);
                let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{found:?}: {a}, {b}");
                close(last.estimate.value, expected.value);
                close(last.estimate.error, expected.error);
                assert!(found.points.iter().all(|point| point.estimate.interval.is_some()));
            }
            // The points of one series share the order of the texts, so two texts are part of four.
            let direct = estimates.terms.points[0].contributions(Series::Direct).unwrap();
            let means: Vec<f64> = direct.chunks(20 / texts).map(|of_text| of_text.iter().sum::<f64>()).collect();
            let total = |point: &ConvergencePoint| point.estimate.value * (point.texts * 20 / texts) as f64;
            let points = &estimates.convergence[0].points;
            let has_pair =
                |sum: f64| means.iter().enumerate().any(|(i, a)| means[..i].iter().any(|b| (a + b - sum).abs() < 1e-9));
            assert!(has_pair(total(&points[0])) && has_pair(total(&points[1]) - total(&points[0])));
        }
    }
}
