//! Tests of the estimates with hand-written answers.

use super::*;
use crate::plan::Design;
use crate::statistics::{EntropyMethod, NgramEntropy};

/// Returns a plan of three documents at splits 1 and 2, and answers that differ between queries.
fn example() -> (Plan, Vec<Vec<f32>>) {
    let plan = Plan::new(3, &[1, 2], Pairing::Same, 0).unwrap();
    let answer = |query: &PlannedQuery| match *query {
        PlannedQuery::Whole { document, .. } => {
            let d = document as f32;
            vec![-100.0, -d, -2.0 * d, -3.0 * d]
        }
        PlannedQuery::Marginal { document, split, .. } => vec![-10.0 * document as f32 - 1.0; split],
        PlannedQuery::Crossed { x, y, split, .. } => vec![-((5 * x + 7 * y) as f32); split],
        PlannedQuery::Joint { .. } | PlannedQuery::JointMarginal { .. } => unreachable!(),
    };
    let answers = plan.queries().iter().map(answer).collect();
    (plan, answers)
}

fn entropy(n: usize) -> NgramEntropy {
    NgramEntropy { n, method: EntropyMethod::Grassberger, nats: 3.0, error: 0.5, total: 10, distinct: 5, bias: None }
}

fn close(estimate: Estimate, value: f64, error: f64) {
    assert!((estimate.value - value).abs() < 1e-9, "{estimate:?}, not {value}");
    assert!((estimate.error - error).abs() < 1e-9, "{estimate:?}, not {error}");
}

#[test]
fn estimates_are_means_over_documents() {
    let (plan, answers) = example();
    let estimates = Estimates::new(&plan, &answers, Some(Correction::new(entropy(1)))).unwrap();
    let [first, second] = estimates.points[..] else { panic!() };
    assert_eq!((first.length, first.split, second.length), (2, 1, 4));
    let thirds = 3.0_f64.sqrt();
    // Split 1: -d + 10 d + 1 for d = 0, 1, 2.
    close(first.direct, 10.0, 9.0 / thirds);
    // Split 2: -5 d + 2 (10 d + 1).
    close(second.direct, 17.0, 15.0 / thirds);
    // Each marginal loses 4/5 (3 + head), where head = -10 d - 1, so the direct estimate gains 4/5 (2 - 10 d).
    close(first.corrected.unwrap(), 10.0 + 0.8 * -8.0, (1.0 / thirds).hypot(0.5));
    close(second.corrected.unwrap(), 17.0 + 0.8 * -8.0, 7.0 / thirds);
    // Split 1: -d + 5 x + 7 y with y = d; the mean over a permutation x is 11.
    let (value, partners) = (11.0, plan.partners());
    let terms: Vec<f64> = (0..3).map(|d| 6.0 * d as f64 + 5.0 * partners[d] as f64).collect();
    close(first.vclub, value, Estimate::of(&terms).error);
    // -ln q at position 2: 2 d.
    close(estimates.nll[2], 2.0, 2.0 / thirds);
    assert_eq!(estimates.nll.len(), 4);
    // -ln q: 100 + 6 d.
    let ln_p = [-99.0, -103.0, -113.0].map(|total| vec![total, 0.0, 0.0, 0.0]);
    let divergence = estimates.divergence(&ln_p);
    close(divergence.total, 1.0, 2.0 / thirds);
    // -99, -103 and -113 plus 100; then d, 2 d and 3 d.
    close(divergence.bins[0].estimate, -5.0, Estimate::of(&[1.0, -3.0, -13.0]).error);
    close(divergence.bins[3].estimate, 3.0, 3.0 / thirds);
}

#[test]
fn several_negatives_are_averaged_and_larger_ratios_use_more_of_y() {
    let design = Design { splits: vec![1], ratios: vec![2, 3], window: 3, negatives: 2, ..Design::default() };
    let plan = Plan::of(3, design).unwrap();
    let answer = |query: &PlannedQuery| match *query {
        PlannedQuery::Whole { .. } => vec![-100.0, -1.0, -2.0],
        PlannedQuery::Marginal { .. } => vec![-4.0, -8.0],
        PlannedQuery::Crossed { x, .. } => vec![-(x as f32), -16.0],
        PlannedQuery::Joint { .. } | PlannedQuery::JointMarginal { .. } => unreachable!(),
    };
    let answers: Vec<Vec<f32>> = plan.queries().iter().map(answer).collect();
    let estimates = Estimates::new(&plan, &answers, None).unwrap();
    let [two, three] = estimates.points[..] else { panic!() };
    close(two.direct, 3.0, 0.0);
    close(three.direct, 9.0, 0.0);
    // The mean x of the two contexts of a y: 1.5, 1 or 0.5.
    close(two.vclub, 1.0 - 1.0, 0.5 / 3.0_f64.sqrt());
    close(three.vclub, 17.0 - 3.0, 0.5 / 3.0_f64.sqrt());
}

#[test]
fn crossed_pairing_changes_no_mean_and_both_errors_are_reported() {
    let (plan, answers) = example();
    let crossed = Plan::new(3, &[1, 2], Pairing::Crossed, 0).unwrap();
    let same = Estimates::new(&plan, &answers, None).unwrap().points[1];
    let other = Estimates::new(&crossed, &answers, None).unwrap().points[1];
    assert!((same.direct.value - other.direct.value).abs() < 1e-9);
    assert!((same.direct.error - other.direct.error).abs() > 1e-3);
    assert_eq!(same.pairing_errors, PairingErrors { same: same.direct.error, crossed: other.direct.error });
    assert_eq!((same.vclub, same.pairing_errors), (other.vclub, other.pairing_errors));
    assert_eq!(same.corrected, None);
}

#[test]
fn intervals_contain_their_value_and_the_entropy_error_widens_them() {
    let (plan, answers) = example();
    let plain = Estimates::new(&plan, &answers, Some(Correction::new(NgramEntropy { error: 0.0, ..entropy(1) })));
    let wide = Estimates::new(&plan, &answers, Some(Correction::new(entropy(1)))).unwrap();
    let (plain, wide) = (plain.unwrap().points[0].corrected.unwrap(), wide.points[0].corrected.unwrap());
    let ([low, high], [lower, higher]) = (plain.interval.unwrap(), wide.interval.unwrap());
    assert!(lower < low && low <= plain.value && plain.value <= high && high < higher);
    assert!(wide.value - lower > 1.95 * 0.5);
}

#[test]
fn errors_describe_invalid_answers() {
    let (plan, mut answers) = example();
    let error = |answers: &[Vec<f32>], correction| Estimates::new(&plan, answers, correction).unwrap_err().to_string();
    let too_long = error(&answers, Some(Correction::new(entropy(2))));
    assert!(too_long.contains("at most 1, the length of the shortest y"), "{too_long}");
    let missing = error(&answers[1..], None);
    assert!(missing.contains("is 14") && missing.contains("15 queries"), "{missing}");
    answers[0][2] = f32::NEG_INFINITY;
    let infinite = error(&answers, None);
    assert!(infinite.contains("-inf at target token 2"), "{infinite}");
    answers[0].pop();
    assert!(error(&answers, None).contains("4 for document"), "{}", error(&answers, None));
}

#[test]
fn errors_show_two_digits() {
    let show = |value, error| Estimate::new(value, error).to_string();
    assert_eq!(show(5.4987, 0.7123), "5.50 ± 0.71");
    assert_eq!(show(15.23, 10.7), "15 ± 11");
    assert_eq!(show(1.0, 0.0), "1.0000 ± 0");
}
