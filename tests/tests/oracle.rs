//! The oracle end to end: its log-probabilities, and estimates from them, match the closed forms.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use surprisal_engine::SchedulerConfig;
use surprisal_estimator::{
    Correction, DivergenceBin, Experiment, HttpOptions, HttpSource, LogprobSource, NgramEntropy, Pairing, Plan, Report,
    SantaFe, execute, run,
};
use surprisal_model::oracle::{self, OracleSpec};
use surprisal_server::ServerConfig;
use surprisal_tests::server::{TestServer, bits};

async fn serve(process: &SantaFe, context_length: usize) -> (tempfile::TempDir, TestServer) {
    let dir = tempfile::tempdir().unwrap();
    let probabilities = process.probabilities().to_vec();
    let spec = OracleSpec { probabilities, doubt: process.doubt(), context_length };
    oracle::write(&dir.path().join("oracle"), &spec).unwrap();
    let server =
        TestServer::start(&dir.path().join("oracle"), SchedulerConfig::default(), ServerConfig::default()).await;
    (dir, server)
}

/// Tests a document of the process, and a document whose second half contradicts the first half. Each log-probability
/// must be within 1e-5 of the closed form.
#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_equal_the_closed_form() {
    let process = SantaFe::new(128, 1.3, 1e-6).unwrap();
    let (_dir, server) = serve(&process, 1024).await;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (x, y) = (process.sample(1023, &mut rng), process.sample(1023, &mut rng));
    let crossed: Vec<u32> = x[..500].iter().chain(&y[500..]).copied().collect();
    let documents = [x, crossed];
    let queries: Vec<_> = documents.iter().map(|document| json!({"target": document})).collect();
    let answer = server.logprobs(&json!({"queries": queries, "detail": "tokens"})).await;
    for (document, result) in documents.iter().zip(answer["results"].as_array().unwrap()) {
        let want = process.logprobs(&[], document).unwrap();
        let got = bits(result).into_iter().map(f32::from_bits);
        let worst = got.zip(&want).map(|(got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "maximal log-probability error {worst:e}");
    }
    server.stop().await;
}

/// Runs an experiment file against a served oracle that doubts. Its divergence from the process must be the closed form
/// in every range of positions: a token loses -ln(1 - doubt) if its symbol was seen before it.
#[tokio::test(flavor = "multi_thread")]
async fn the_divergence_of_a_served_model_is_measured_by_position() {
    const DOUBT: f64 = 0.2;
    // The largest error of a log-probability by the engine's rounding, as in the first test.
    const ROUNDING: f64 = 1e-5;
    let process = SantaFe::new(32, 1.3, DOUBT).unwrap();
    let (_dir, server) = serve(&process, 128).await;
    let text = format!(
        "seed = 6\n[model]\nurl = \"{}\"\n\
         [corpus]\nkind = \"santa-fe\"\ndocuments = 200\nsymbols = 32\nexponent = 1.3\ndoubt = {DOUBT}\n\
         [measure]\nsplits = [8, 32]\nngram = 0\nresamples = 100\n",
        server.url
    );
    let experiment = Experiment::parse(&text, Path::new("served.toml")).unwrap();
    let report = execute(&experiment, None, |_| ()).await.unwrap();
    let seen = |t: usize| process.probabilities().iter().map(|p| p * (1.0 - (1.0 - p).powi(t as i32 - 1))).sum::<f64>();
    println!("| positions | KL per token | closed form |");
    for DivergenceBin { bin, truth } in &report.divergence_bins {
        let positions = bin.first..=bin.last;
        let exact = -(-DOUBT).ln_1p() * positions.clone().map(seen).sum::<f64>() / positions.count() as f64;
        println!("| {} to {} | {} | {exact:.5} |", bin.first, bin.last, bin.estimate);
        assert!((bin.estimate.value - exact).abs() < 4.0 * bin.estimate.error + ROUNDING, "{bin:?}: {exact}");
        assert!(bin.first < 8 || bin.estimate.value > 10.0 * bin.estimate.error, "{bin:?}");
        assert_eq!(*truth, None, "nothing is known about a served model");
    }
    assert_eq!(report.divergence_bins.last().unwrap().bin.last, 64);
    server.stop().await;
}

/// Runs the demo's experiment with fewer documents. The direct estimate must be within 3 standard errors of the true
/// mutual information, and vCLUB within 3 standard errors of the value to which it converges for this process.
#[tokio::test(flavor = "multi_thread")]
async fn estimates_agree_with_the_closed_forms() {
    let process = SantaFe::new(128, 1.3, 1e-6).unwrap();
    let (_dir, server) = serve(&process, 1025).await;
    let source = HttpSource::connect(&server.url, HttpOptions::default()).await.unwrap();
    let plan = Plan::new(32, &[2, 4, 8, 16, 32, 64, 128, 256, 512], Pairing::Same, 1).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let documents: Vec<_> = (0..plan.documents()).map(|_| process.sample(plan.window(), &mut rng)).collect();
    let entropy = NgramEntropy::of_texts(documents.iter().map(Vec::as_slice), 2).unwrap();
    let estimates = run(&source, &documents, &plan, Some(Correction::new(entropy)), |_| ()).await.unwrap();
    let report = Report::new("Santa Fe", source.model(), &estimates).with_truth(&process);
    for row in &report.rows {
        let (split, estimates) = (row.estimates.split, &row.estimates);
        let truth = process.mutual_information(split, split);
        assert!(
            (estimates.direct.value - truth).abs() < 3.0 * estimates.direct.error,
            "l = {split}:\n{}",
            report.table()
        );
        let limit = process.vclub_limit(split, split);
        assert!(
            (estimates.vclub.value - limit).abs() < 3.0 * estimates.vclub.error,
            "l = {split}:\n{}",
            report.table()
        );
    }
    // The server saved as much as the plan predicts: shared prefixes were computed once, except for up to one block
    // each.
    let (computed, shared) = (server.metric("surprisal_computed_tokens_total").await, plan.cost().shared as f64);
    assert!(computed < 1.02 * shared, "{computed} tokens were computed, {shared} planned");
    server.stop().await;
}
