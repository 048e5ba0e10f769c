//! Self-consistency: checks that the estimates have properties that mutual information has.
//!
//! Song and Ermon, *Understanding the Limitations of Variational Mutual Information Estimators* (2020), section 4.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::estimate::clusters::Clusters;
use crate::estimate::contributions::{AVERAGED, Contributions, DIRECT, VCLUB};
use crate::estimate::series::Series;
use crate::plan::{Plan, Point};
use crate::value::Estimate;

/// The probability that a test reports a violation although all its differences are 0.
const TEST_LEVEL: f64 = 0.05;

/// A difference, in nats, that is not distinguished from rounding.
const NEGLIGIBLE: f64 = 1e-9;

/// A property of mutual information, checked by a difference that must not be negative, or must be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsistencyTest {
    /// The data-processing inequality: tokens that are added to `x` or `y` do not reduce the information. The
    /// difference is the estimate at the longer point minus that at the shorter one. Between different splits, this
    /// needs stationary texts.
    DataProcessing,
    /// The marginal term: in the mean, `ln q(y)` is not below `ln mean_k q(y|x_k)`, which an average over few contexts
    /// makes too small (Jensen). The difference is the averaged estimate, or vCLUB if there is one context, minus the
    /// direct one. If it is negative, the direct estimate is too large by at least as much.
    Marginal,
    /// Additivity: unrelated texts have no information about each other. The difference is the direct estimate of two
    /// unrelated documents, `x_a x_b` before `y_a y_b`, minus the sum of both direct estimates. It is 0 for mutual
    /// information; otherwise the documents disturb each other in the model's context.
    Additivity,
}

impl ConsistencyTest {
    /// All tests.
    pub const ALL: [ConsistencyTest; 3] =
        [ConsistencyTest::DataProcessing, ConsistencyTest::Marginal, ConsistencyTest::Additivity];

    /// Returns the test's name in a table.
    pub fn name(self) -> &'static str {
        match self {
            ConsistencyTest::DataProcessing => "data processing",
            ConsistencyTest::Marginal => "marginal",
            ConsistencyTest::Additivity => "additivity",
        }
    }

    /// Returns `true` if differences of either sign violate the property, or `false` if only negative ones do.
    pub(crate) fn is_two_sided(self) -> bool {
        self == ConsistencyTest::Additivity
    }
}

/// One difference that must not be negative, or must be 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsistencyCheck {
    /// The property.
    pub test: ConsistencyTest,
    /// The estimator; for [`ConsistencyTest::Marginal`], the one from which the direct estimate is subtracted.
    pub series: Series,
    /// The ratio `L/ℓ` and the length `L` of the shorter point.
    pub from: [usize; 2],
    /// The ratio and the length of the longer point, or of two documents together; those of the shorter point if the test
    /// compares estimators.
    pub to: [usize; 2],
    /// The mean of the documents' differences, with its standard error over texts.
    pub difference: Estimate,
    /// `true` if the difference is significantly negative, or for additivity, significantly different from 0: at a level
    /// of 5 % for all differences of the test together (Bonferroni), by Student's t distribution.
    pub is_violated: bool,
}

/// Returns the checks that the contributions allow.
pub(crate) fn checks(plan: &Plan, points: &[Contributions]) -> Vec<ConsistencyCheck> {
    let all: Vec<(Point, &Contributions)> = plan.points().iter().copied().zip(points).collect();
    let freedom = Clusters::of(plan).freedom();
    let additivity = all.iter().filter_map(|(_, contributions)| contributions.additivity.as_ref());
    let of_pairs = additivity.map(|additivity| additivity.freedom).next().unwrap_or(1.0);
    let marginal = if plan.text_count() > 1 { marginal(&all) } else { Vec::new() };
    [
        mark_violations(data_processing(plan, &all), freedom),
        mark_violations(marginal, freedom),
        mark_violations(self::additivity(&all), of_pairs),
    ]
    .concat()
}

fn data_processing(plan: &Plan, points: &[(Point, &Contributions)]) -> Vec<ConsistencyCheck> {
    let mut checks = Vec::new();
    for (estimator, &series) in Series::ESTIMATORS.iter().enumerate().filter(|(_, series)| series.has_fit()) {
        for &(shorter, from) in points {
            for &(longer, to) in points.iter().filter(|(longer, _)| follows(plan, shorter, *longer)) {
                if let Some(difference) = Contributions::difference((to, estimator), (from, estimator)) {
                    checks.push(check(ConsistencyTest::DataProcessing, series, [shorter, longer], difference));
                }
            }
        }
    }
    checks
}

fn marginal(points: &[(Point, &Contributions)]) -> Vec<ConsistencyCheck> {
    let mut checks = Vec::new();
    for &(point, contributions) in points {
        let upper = if contributions.averaged.is_some() { AVERAGED } else { VCLUB };
        if let Some(difference) = Contributions::difference((contributions, upper), (contributions, DIRECT)) {
            checks.push(check(ConsistencyTest::Marginal, Series::ESTIMATORS[upper], [point; 2], difference));
        }
    }
    checks
}

fn additivity(points: &[(Point, &Contributions)]) -> Vec<ConsistencyCheck> {
    let mut checks = Vec::new();
    for (point, contributions) in points {
        if let Some(additivity) = &contributions.additivity {
            let together = Point { split: 2 * point.split, ..*point };
            let points = [*point, together];
            checks.push(check(ConsistencyTest::Additivity, Series::Direct, points, additivity.difference));
        }
    }
    checks
}

/// Returns `true` if `longer` is the next point after `shorter` at the same split or at the same ratio.
fn follows(plan: &Plan, shorter: Point, longer: Point) -> bool {
    let next = |all: &[usize], from, to| all.windows(2).any(|pair| pair == [from, to]);
    let design = plan.design();
    (shorter.split == longer.split && next(&design.ratios, shorter.ratio, longer.ratio))
        || (shorter.ratio == longer.ratio && next(&design.splits, shorter.split, longer.split))
}

fn check(test: ConsistencyTest, series: Series, points: [Point; 2], difference: Estimate) -> ConsistencyCheck {
    let [from, to] = points.map(|point| [point.ratio, point.length()]);
    ConsistencyCheck { test, series, from, to, difference, is_violated: false }
}

/// Marks the differences of one test that are more standard errors below 0, or from 0, than chance explains.
fn mark_violations(mut checks: Vec<ConsistencyCheck>, freedom: f64) -> Vec<ConsistencyCheck> {
    let Ok(student) = StudentsT::new(0.0, 1.0, freedom) else { return checks };
    let level = TEST_LEVEL / checks.len().max(1) as f64;
    for check in &mut checks {
        let t = check.difference.value / check.difference.error;
        check.is_violated = check.difference.value.abs() > NEGLIGIBLE
            && match check.test.is_two_sided() {
                true => t.abs() > student.inverse_cdf(1.0 - 0.5 * level),
                false => t < student.inverse_cdf(level),
            };
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additivity_is_tested_on_both_sides_and_the_others_on_one() {
        let point = Point { ratio: 2, split: 4 };
        let marked = |test, value, error| {
            let difference = Estimate::new(value, error);
            mark_violations(vec![check(test, Series::Direct, [point; 2], difference)], 30.0)[0].is_violated
        };
        let values = [(-4.0, 1.0), (4.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (-1e-15, 0.0), (-1.0, 0.0)];
        let of_test = |test| values.map(|(value, error)| marked(test, value, error));
        assert_eq!(of_test(ConsistencyTest::Additivity), [true, true, false, false, false, true]);
        assert_eq!(of_test(ConsistencyTest::DataProcessing), [true, false, false, false, false, true]);
    }
}
