//! Tests of the estimates during a run against those at its end, with random answers.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::estimate::Estimates;
use crate::plan::Design;
use crate::statistics::{EntropyMethod, NgramEntropy};

const DOCUMENTS: usize = 24;

/// Returns a plan of 24 documents, `per_text` from each text, or of texts with 1, 2, 3, ... documents for `None`.
fn plan(per_text: Option<usize>, negatives: usize) -> Plan {
    let design =
        Design { splits: vec![2, 4], ratios: vec![2, 3], negatives, seed: 3, resamples: 0, ..Design::default() };
    let growing = (0..DOCUMENTS).flat_map(|text| vec![text; text + 1]);
    match per_text {
        Some(per_text) => Plan::of_texts((0..DOCUMENTS).map(|document| document / per_text), design).unwrap(),
        None => Plan::of_texts(growing.take(DOCUMENTS), design).unwrap(),
    }
}

fn answers(plan: &Plan) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let answer = |query: &PlannedQuery| (0..query.target_length()).map(|_| -4.0 * rng.random::<f32>()).collect();
    plan.queries().iter().map(answer).collect()
}

fn correction() -> Correction {
    let entropy =
        NgramEntropy { n: 2, method: EntropyMethod::PlugIn, nats: 5.0, error: 0.3, total: 9, distinct: 5, bias: None };
    Correction { entropy, weight: 0.7 }
}

/// Returns the estimates after the answers to these queries, if they are all in scope.
fn after(plan: &Plan, answers: &[Vec<f32>], queries: std::ops::Range<usize>) -> Option<EstimatesSoFar> {
    let mut running = RunningEstimates::new(plan, Some(correction()), queries.clone());
    queries.for_each(|index| running.add(&plan.queries()[index], &answers[index]));
    running.estimates()
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
}

/// With one window for each text, four, or all windows from one text; and with few and many contexts.
#[test]
fn the_last_estimates_are_those_of_the_report() {
    for (per_text, texts) in [(Some(1), 24), (Some(4), 6), (Some(24), 1), (None, 7)] {
        for negatives in [1, 5] {
            let plan = plan(per_text, negatives);
            let answers = answers(&plan);
            let last = after(&plan, &answers, 0..plan.queries().len()).unwrap();
            let estimates = Estimates::new(&plan, &answers, Some(correction())).unwrap();
            assert_eq!((last.documents, last.series.len()), (DOCUMENTS, 3));
            for series in &last.series {
                assert_eq!((series.documents, series.texts), (DOCUMENTS, texts));
                assert_eq!(series.points.len(), estimates.points.len());
                for (so_far, point) in series.points.iter().zip(&estimates.points) {
                    assert_eq!((so_far.ratio, so_far.length, so_far.split), (point.ratio, point.length, point.split));
                    let expected = point.get(series.series).unwrap();
                    close(so_far.estimate.value, expected.value);
                    close(so_far.estimate.error, expected.error);
                }
            }
        }
    }
}

/// Half of the answers: the estimates are those of a plan's documents that have all of theirs.
#[test]
fn estimates_are_means_over_the_documents_with_all_answers() {
    for (per_text, negatives) in [(Some(1), 1), (Some(4), 1), (Some(1), 5), (Some(4), 5), (None, 5)] {
        let plan = plan(per_text, negatives);
        let answers = answers(&plan);
        let half = plan.queries().len() / 2;
        let so_far = after(&plan, &answers, 0..half).unwrap();
        let terms = Estimates::new(&plan, &answers, Some(correction())).unwrap().terms;
        for series in so_far.series {
            let is_missing = |document: usize| {
                plan.queries()[half..].iter().any(|query| match *query {
                    PlannedQuery::Whole { document: whole, .. } => whole == document,
                    PlannedQuery::Marginal { document: y, .. } => series.series != Series::Vclub && y == document,
                    PlannedQuery::Crossed { y, .. } => series.series == Series::Vclub && y == document,
                    _ => false,
                })
            };
            let complete: Vec<usize> = (0..DOCUMENTS).filter(|&document| !is_missing(document)).collect();
            assert!(complete.len() > 3 && complete.len() < DOCUMENTS, "{complete:?}");
            assert_eq!(series.documents, complete.len());
            for point in series.points {
                let values = terms.at(point.ratio, point.length).unwrap().contributions(series.series).unwrap();
                let mean = complete.iter().map(|&d| values[d]).sum::<f64>() / complete.len() as f64;
                close(point.estimate.value, mean);
                let [low, high] = point.estimate.interval.unwrap();
                assert!(low < mean && mean < high && point.estimate.error > 0.0);
            }
        }
    }
}

/// The interval over six texts is that of Student's t distribution with five degrees of freedom.
#[test]
fn intervals_are_over_texts() {
    let plan = plan(Some(4), 1);
    let answers = answers(&plan);
    let direct = &after(&plan, &answers, 0..plan.queries().len()).unwrap().series[0];
    let Estimate { value, error, interval } = direct.points[0].estimate;
    close(interval.unwrap()[1], value + 2.570_581_836_614_74 * error);
}

/// A shard has the documents whose queries it scores; with many contexts, there may be none for vCLUB.
#[test]
fn a_shard_estimates_what_it_can() {
    let plan = plan(Some(1), 20);
    let (answers, all) = (answers(&plan), plan.queries().len());
    let shard = after(&plan, &answers, all / 2..all).unwrap();
    let named: Vec<Series> = shard.series.iter().map(|series| series.series).collect();
    assert_eq!(named, [Series::Direct, Series::Corrected]);
    assert!((10..13).contains(&shard.documents), "{}", shard.documents);
    assert_eq!(shard.series[0].documents, shard.documents);
}

/// Answers that are invalid, and a correction that does not fit, are errors at the end of the run, not during it.
#[test]
fn invalid_answers_are_ignored() {
    let plan = plan(Some(1), 1);
    assert_eq!(after(&plan, &answers(&plan), 0..1), None);
    let mut correction = correction();
    correction.entropy.n = 50;
    let mut running = RunningEstimates::new(&plan, Some(correction), 0..plan.queries().len());
    for (query, mut answer) in plan.queries().iter().zip(answers(&plan)) {
        if matches!(query, PlannedQuery::Whole { document: 0, .. }) {
            answer.pop();
        }
        if matches!(query, PlannedQuery::Whole { document: 1, .. }) {
            answer[0] = f32::NAN;
        }
        running.add(query, &answer);
    }
    let series = running.estimates().unwrap().series;
    assert_eq!(series.iter().map(|series| series.documents).collect::<Vec<_>>(), [DOCUMENTS - 2; 2]);
}
