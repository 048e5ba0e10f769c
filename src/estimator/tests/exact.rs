//! Whole experiments on processes whose probabilities and mutual information are known in closed form.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    Correction, Design, Error, Estimate, Estimates, ExactSource, Gaussian, LogprobSource, Model, NgramEntropy, Pairing,
    Plan, Process, Progress, Report, SantaFe, ScoreQuery, Series, run,
};

const SPLITS: [usize; 7] = [2, 4, 8, 16, 32, 64, 128];

fn process() -> SantaFe {
    SantaFe::new(1000, 1.5, 1e-3).unwrap()
}

fn documents(process: &SantaFe, plan: &Plan, seed: u64) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..plan.documents()).map(|_| process.sample(plan.window(), &mut rng)).collect()
}

async fn estimate(process: &SantaFe, plan: &Plan, correction: Option<Correction>, seed: u64) -> Estimates {
    let source = ExactSource::new(process.clone());
    let documents = documents(process, plan, seed);
    run(&source, &documents, plan, correction, |_| {}).await.unwrap()
}

fn assert_within_3(name: &str, split: usize, estimate: Estimate, expected: f64) {
    let off = (estimate.value - expected) / estimate.error;
    assert!(off.abs() < 3.0, "{name} at split {split}: expected {expected:.4}, got {estimate} ({off:.1} errors off)");
}

#[tokio::test]
async fn estimates_lie_within_3_standard_errors_of_the_closed_forms() {
    let process = process();
    for (pairing, seed) in [(Pairing::Same, 11), (Pairing::Crossed, 12)] {
        let plan = Plan::new(500, &SPLITS, pairing, seed).unwrap();
        let estimates = estimate(&process, &plan, None, seed).await;
        assert_eq!(estimates.points.len(), SPLITS.len());
        for split in &estimates.points {
            let s = split.split;
            assert_within_3("direct", s, split.direct, process.direct_limit(s, s));
            assert_within_3("vCLUB", s, split.vclub, process.vclub_limit(s, s));
        }
    }
}

#[tokio::test]
async fn the_direct_estimator_is_unbiased() {
    let process = process();
    let plan = Plan::new(60, &SPLITS, Pairing::Same, 0).unwrap();
    let mut runs = Vec::new();
    for seed in 0..25 {
        runs.push(estimate(&process, &plan, None, 100 + seed).await);
    }
    let count = runs.len() as f64;
    for (index, &split) in SPLITS.iter().enumerate() {
        let values: Vec<f64> = runs.iter().map(|run| run.points[index].direct.value).collect();
        let value = values.iter().sum::<f64>() / count;
        let spread = values.iter().map(|v| (v - value).powi(2)).sum::<f64>() / (count - 1.0);
        let error = (spread / count).sqrt();
        assert_within_3("mean of direct", split, Estimate::new(value, error), process.direct_limit(split, split));
        // The standard error that a run reports must match the spread of the runs.
        let reported = runs.iter().map(|run| run.points[index].direct.error).sum::<f64>() / count;
        assert!((0.6..1.6).contains(&(reported / spread.sqrt())), "split {split}: {reported}, {}", spread.sqrt());
    }
}

#[tokio::test]
async fn the_correction_keeps_the_mean_if_the_model_knows_the_marginal() {
    let process = SantaFe::new(16, 1.2, 1e-6).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let pairs: Vec<Vec<u32>> = (0..50_000).map(|_| process.sample(2, &mut rng)).collect();
    let entropy = NgramEntropy::of_texts(pairs.iter().map(Vec::as_slice), 2).unwrap();
    let plan = Plan::new(400, &[2, 8, 32], Pairing::Same, 5).unwrap();
    let estimates = estimate(&process, &plan, Some(Correction::new(entropy)), 5).await;
    for split in &estimates.points {
        let corrected = split.corrected.unwrap();
        assert_within_3("corrected", split.split, corrected, process.direct_limit(split.split, split.split));
        assert_ne!(corrected, split.direct);
    }
}

#[tokio::test]
async fn the_fits_find_the_power_laws_of_the_process_and_of_vclub() {
    let process = process();
    let plan = Plan::new(500, &SPLITS, Pairing::Same, 11).unwrap();
    let estimates = estimate(&process, &plan, None, 11).await;
    let source = ExactSource::new(process.clone());
    let report = Report::new("Santa Fe", source.model(), &estimates).with_truth(&process);
    let exponent = |series| report.fits.iter().find(|fit| fit.series == series).unwrap().fit.exponent;
    assert!((exponent(Series::Direct) - exponent(Series::Truth)).abs() < 0.02);
    assert!((exponent(Series::Vclub) - exponent(Series::VclubLimit)).abs() < 0.05);
    assert!(exponent(Series::VclubLimit) > exponent(Series::Truth) + 0.02);
}

/// An exact source that records its queries.
struct Recorder {
    exact: ExactSource,
    model: Model,
    asked: Mutex<Vec<ScoreQuery>>,
}

impl LogprobSource for Recorder {
    fn model(&self) -> &Model {
        &self.model
    }

    async fn logprobs(&self, queries: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        self.asked.lock().unwrap().extend_from_slice(&queries);
        self.exact.logprobs(queries).await
    }
}

fn recorder(process: &SantaFe, max_length: usize) -> Recorder {
    let exact = ExactSource::new(process.clone());
    Recorder { model: Model { max_length, ..exact.model().clone() }, exact, asked: Mutex::default() }
}

#[tokio::test]
async fn every_query_is_scored_once_and_progress_ends_at_the_total() {
    let process = process();
    let plan = Plan::new(30, &SPLITS, Pairing::Same, 2).unwrap();
    let documents = documents(&process, &plan, 2);
    let source = recorder(&process, 257);
    let mut seen: Vec<Progress> = Vec::new();
    run(&source, &documents, &plan, None, |progress| {
        seen.push(progress);
    })
    .await
    .unwrap();

    let asked = source.asked.into_inner().unwrap();
    let planned: Vec<ScoreQuery> = plan.queries().iter().map(|query| query.score_query(&documents)).collect();
    assert_eq!(asked, planned);
    assert_eq!((seen[0].queries, seen[0].tokens), (0, 0));
    assert!(seen.len() > 2 && seen.windows(2).all(|pair| pair[0].tokens < pair[1].tokens));
    let last = seen.last().unwrap();
    assert_eq!((last.queries, last.tokens), (last.total_queries, last.total_tokens));
    assert_eq!(last.total_queries, plan.cost().queries);
}

/// Nothing is estimated before the first answer; the last estimates are those of the result.
#[tokio::test]
async fn the_estimates_so_far_end_at_those_of_the_result() {
    let process = process();
    let plan = Plan::new(30, &SPLITS, Pairing::Same, 2).unwrap();
    let mut seen: Vec<Progress> = Vec::new();
    let source = ExactSource::new(process.clone());
    let estimates = run(&source, &documents(&process, &plan, 2), &plan, None, |progress| seen.push(progress)).await;
    assert_eq!(seen[0].estimates, None);
    let last = seen.last().unwrap().estimates.clone().unwrap();
    for point in estimates.unwrap().points {
        for (series, expected) in last.series.iter().zip([point.direct, point.vclub]) {
            let found = series.at(point.ratio, point.length).unwrap();
            assert!((found.value - expected.value).abs() < 1e-9 && (found.error - expected.error).abs() < 1e-9);
        }
    }
}

#[tokio::test]
async fn an_oversized_plan_is_rejected_before_any_request() {
    let process = process();
    let plan = Plan::new(3, &SPLITS, Pairing::Same, 2).unwrap();
    let mut documents = documents(&process, &plan, 2);
    let source = recorder(&process, 256);
    let error = run(&source, &documents, &plan, None, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("257") && error.contains("at most 256"), "{error}");
    documents[1].pop();
    let error = run(&source, &documents, &plan, None, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("document 1 has 255 tokens"), "{error}");
    let error = run(&source, &documents[1..], &plan, None, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("number of documents is 2"), "{error}");
    assert!(source.asked.into_inner().unwrap().is_empty());
}

#[tokio::test]
async fn gaussian_estimates_lie_within_3_standard_errors_of_the_closed_forms() {
    let process = Gaussian::new(128, 0.6, 0.2).unwrap();
    let source = ExactSource::new(process.clone());
    let splits = [2, 4, 8, 16, 32, 64];
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let plan = Plan::new(600, &splits, Pairing::Same, 21).unwrap();
    let documents: Vec<Vec<f64>> = (0..600).map(|_| process.sample(plan.window(), &mut rng)).collect();
    let estimates = run(&source, &documents, &plan, None, |_| {}).await.unwrap();
    for split in &estimates.points {
        let s = split.split;
        assert_within_3("direct", s, split.direct, process.mutual_information(s, s));
        assert_within_3("vCLUB", s, split.vclub, process.vclub_limit(s, s));
    }
    let report = Report::new("Gaussian", LogprobSource::<f64>::model(&source), &estimates).with_truth(&process);
    let exponent = |series| report.fits.iter().find(|fit| fit.series == series).unwrap().fit.exponent;
    assert!((exponent(Series::Direct) - exponent(Series::Truth)).abs() < 0.05);
}

#[tokio::test]
async fn estimates_at_every_ratio_and_with_several_negatives_match_the_closed_forms() {
    async fn check<P: Process + Clone>(process: P, seed: u64) {
        let design = Design { splits: vec![2, 4, 8, 16], ratios: vec![2, 3, 4], window: 64, seed, ..Design::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let documents: Vec<_> = (0..400).map(|_| process.sample(64, &mut rng)).collect();
        for negatives in [1, 8] {
            let plan = Plan::of(400, Design { negatives, ..design.clone() }).unwrap();
            let source = ExactSource::new(process.clone());
            let estimates = run(&source, &documents, &plan, None, |_| {}).await.unwrap();
            assert_eq!(estimates.points.len(), 12);
            for point in &estimates.points {
                let (m, n) = (point.split, point.length - point.split);
                assert_within_3("direct", m, point.direct, process.direct_limit(m, n));
                assert_within_3("vCLUB", m, point.vclub, process.vclub_limit(m, n));
                let [low, high] = point.direct.interval.unwrap();
                assert!(low < point.direct.value && point.direct.value < high);
            }
        }
    }
    check(process(), 31).await;
    check(Gaussian::new(64, 0.6, 0.2).unwrap(), 31).await;
}

#[tokio::test]
async fn a_gaussian_sequence_that_is_too_long_is_rejected() {
    let process = Gaussian::new(100, 0.6, 0.2).unwrap();
    let plan = Plan::new(2, &[64], Pairing::Same, 1).unwrap();
    let documents = vec![vec![0.0; 128]; 2];
    let error = run(&ExactSource::new(process), &documents, &plan, None, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("129") && error.contains("at most 101"), "{error}");
}

/// Returns the spread of vCLUB over repeated experiments and the mean of its reported errors, added over all points.
async fn vclub_spread<P: Process + Clone>(process: &P, negatives: usize) -> [f64; 2] {
    const REPETITIONS: u64 = 100;
    let source = ExactSource::new(process.clone());
    let (mut values, mut reported) = (vec![Vec::new(); 12], 0.0);
    for seed in 0..REPETITIONS {
        let (splits, ratios) = (vec![2, 4, 8, 16], vec![2, 3, 4]);
        let design = Design { splits, ratios, window: 64, negatives, seed, resamples: 0, ..Design::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(1000 + seed);
        let documents: Vec<_> = (0..400).map(|_| process.sample(64, &mut rng)).collect();
        let estimates = run(&source, &documents, &Plan::of(400, design).unwrap(), None, |_| {}).await.unwrap();
        for (values, point) in values.iter_mut().zip(&estimates.points) {
            values.push(point.vclub.value);
            reported += point.vclub.error;
        }
    }
    let count = REPETITIONS as f64;
    let spread = |values: &Vec<f64>| {
        let mean = values.iter().sum::<f64>() / count;
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt()
    };
    [values.iter().map(spread).sum(), reported / count]
}

/// Each context is a negative of eight documents, so the errors of their contributions are not independent. For the
/// Gaussian process, eight negatives lower the spread by 5 % only.
#[tokio::test]
async fn errors_of_vclub_are_the_spread_of_repeated_experiments() {
    async fn check<P: Process + Clone>(process: P, gain: f64) {
        let mut spreads = Vec::new();
        for negatives in [1, 8] {
            let [spread, reported] = vclub_spread(&process, negatives).await;
            println!("{}, {negatives} negatives: spread {spread:.3}, reported {reported:.3}", process.name());
            assert!((0.85..1.15).contains(&(reported / spread)), "{negatives} negatives: {reported}, {spread}");
            spreads.push(spread);
        }
        assert!(spreads[1] < gain * spreads[0], "more negatives must lower the spread: {spreads:?}");
    }
    check(process(), 0.6).await;
    check(Gaussian::new(64, 0.6, 0.2).unwrap(), 1.0).await;
}
