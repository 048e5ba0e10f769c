//! Self-consistency: checks that the estimates have properties that mutual information has.
//!
//! Song and Ermon, *Understanding the Limitations of Variational Mutual Information Estimators* (2020), section 4.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::estimate::clusters::Clusters;
use crate::estimate::contributions::{AVERAGED, Contributions, DIRECT, ESTIMATORS, VCLUB};
use crate::estimate::series::Series;
use crate::plan::{Plan, Point};
use crate::value::Estimate;

/// The probability that a test reports a violation although all its differences are 0.
const TEST_LEVEL: f64 = 0.05;

/// A property of mutual information, checked by a difference that must not be negative.
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
}

impl ConsistencyTest {
    /// All tests.
    pub const ALL: [ConsistencyTest; 2] = [ConsistencyTest::DataProcessing, ConsistencyTest::Marginal];

    /// Returns the test's name in a table.
    pub fn name(self) -> &'static str {
        match self {
            ConsistencyTest::DataProcessing => "data processing",
            ConsistencyTest::Marginal => "marginal",
        }
    }
}

/// One difference that must not be negative.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsistencyCheck {
    /// The property.
    pub test: ConsistencyTest,
    /// The estimator; for [`ConsistencyTest::Marginal`], the one from which the direct estimate is subtracted.
    pub series: Series,
    /// The ratio `L/ℓ` and the length `L` of the shorter point.
    pub from: [usize; 2],
    /// The ratio and the length of the longer point; those of the shorter one if the test compares estimators.
    pub to: [usize; 2],
    /// The mean of the documents' differences, with its standard error over texts.
    pub difference: Estimate,
    /// `true` if the difference is significantly negative: at a level of 5 % for all differences of the test together
    /// (Bonferroni), by Student's t distribution.
    pub is_violated: bool,
}

/// Returns the checks that the contributions allow.
pub(crate) fn checks(plan: &Plan, points: &[Contributions]) -> Vec<ConsistencyCheck> {
    let all: Vec<(&Point, &Contributions)> = plan.points().iter().zip(points).collect();
    let mut checks = Vec::new();
    for (estimator, &series) in ESTIMATORS.iter().enumerate().filter(|(_, series)| series.has_fit()) {
        for &(shorter, from) in &all {
            for &(longer, to) in all.iter().filter(|(longer, _)| follows(plan, *shorter, **longer)) {
                let difference = Contributions::difference((to, estimator), (from, estimator));
                checks.extend(
                    difference.map(|difference| {
                        check(ConsistencyTest::DataProcessing, series, [*shorter, *longer], difference)
                    }),
                );
            }
        }
    }
    for &(point, contributions) in all.iter().filter(|_| plan.text_count() > 1) {
        let upper = if contributions.averaged.is_some() { AVERAGED } else { VCLUB };
        let difference = Contributions::difference((contributions, upper), (contributions, DIRECT));
        checks.extend(
            difference.map(|difference| check(ConsistencyTest::Marginal, ESTIMATORS[upper], [*point; 2], difference)),
        );
    }
    mark_violations(&mut checks, Clusters::of(plan).count());
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

/// Marks the differences that are more standard errors below 0 than chance explains.
fn mark_violations(checks: &mut [ConsistencyCheck], clusters: usize) {
    let Ok(student) = StudentsT::new(0.0, 1.0, clusters as f64 - 1.0) else { return };
    for test in ConsistencyTest::ALL {
        let count = checks.iter().filter(|check| check.test == test).count();
        let least = student.inverse_cdf(TEST_LEVEL / count.max(1) as f64);
        for check in checks.iter_mut().filter(|check| check.test == test) {
            check.is_violated = check.difference.value < least * check.difference.error;
        }
    }
}
