//! The averaged marginal of a Llama whose marginal after BOS is biased by construction.
//!
//! Contexts are uniform over short sequences of few tokens, and the model itself continues them, so its conditional
//! probabilities are exact. The true marginal is the average over all contexts, which are few enough to enumerate. After
//! BOS, the model predicts something else: a random Llama does not average over what could stand before a text.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_engine::SchedulerConfig;
use surprisal_estimator::{Design, HttpOptions, HttpSource, LogprobSource, Plan, ScoreQuery, run};
use surprisal_server::ServerConfig;
use surprisal_tests::reference::distributions;
use surprisal_tests::server::TestServer;
use surprisal_tests::tiny::{Tensors, TinyLlama};

const MODEL: TinyLlama = TinyLlama {
    vocab: 8,
    hidden: 24,
    intermediate: 32,
    layers: 2,
    heads: 2,
    kv_heads: 1,
    head_dim: 12,
    tied: false,
    max_positions: 32,
};

/// The tokens of contexts.
const WORDS: std::ops::Range<u32> = 2..6;
const DOCUMENTS: usize = 400;
const CONTEXTS: usize = 16;

/// Returns all contexts of `length` tokens.
fn contexts(length: usize) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new()];
    for _ in 0..length {
        all = all.iter().flat_map(|x| WORDS.map(move |word| [&x[..], &[word]].concat())).collect();
    }
    all
}

/// Samples documents: a context, and the model's continuation to `end` tokens.
fn sample(tensors: &Tensors, split: usize, end: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
    let contexts = contexts(split);
    let mut documents = Vec::with_capacity(DOCUMENTS);
    for _ in 0..DOCUMENTS {
        let mut document = contexts[rng.random_range(0..contexts.len())].clone();
        while document.len() < end {
            // A last token of no importance: there is a distribution for every token but the first.
            let tokens = [&[0], &document[..], &[0]].concat();
            let next = distributions(&MODEL, tensors, &tokens).pop().unwrap();
            let mut left: f64 = rng.random();
            let token = next.iter().position(|ln_p| {
                left -= ln_p.exp();
                left < 0.0
            });
            document.push(token.unwrap_or(MODEL.vocab - 1) as u32);
        }
        documents.push(document);
    }
    documents
}

/// Returns the mean of `ln p(y)` over documents, by enumeration of all contexts, for `y` from `split` to `end`.
async fn true_marginal(source: &HttpSource, documents: &[Vec<u32>], split: usize, end: usize) -> f64 {
    let mut counts: BTreeMap<&[u32], usize> = BTreeMap::new();
    for document in documents {
        *counts.entry(&document[split..end]).or_default() += 1;
    }
    let contexts = contexts(split);
    let mut queries = Vec::new();
    for y in counts.keys() {
        queries.extend(contexts.iter().map(|x| ScoreQuery { context: x.clone(), target: y.to_vec() }));
    }
    let answers = source.logprobs(queries).await.unwrap();
    let mut total = 0.0;
    for (answers, count) in answers.chunks(contexts.len()).zip(counts.values()) {
        let given = |answer: &Vec<f32>| answer.iter().map(|&logprob| f64::from(logprob)).sum::<f64>().exp();
        total += *count as f64 * (answers.iter().map(given).sum::<f64>() / contexts.len() as f64).ln();
    }
    total / documents.len() as f64
}

/// Returns the mean of `ln q(y|x) - ln p(y)` over documents.
async fn information(source: &HttpSource, documents: &[Vec<u32>], split: usize, end: usize) -> f64 {
    let query = |document: &Vec<u32>| {
        let (context, target) = (document[..split].to_vec(), document[split..end].to_vec());
        ScoreQuery { context, target }
    };
    let answers = source.logprobs(documents.iter().map(query).collect()).await.unwrap();
    let total: f64 = answers.iter().flatten().map(|&logprob| f64::from(logprob)).sum();
    total / documents.len() as f64 - true_marginal(source, documents, split, end).await
}

/// Prints the table of bench/results/2026-11-30-averaged-marginal.md. Both biases have the same documents and the same
/// conditional term, so their difference is that of the marginal terms.
#[tokio::test(flavor = "multi_thread")]
async fn the_bias_is_below_a_quarter_of_that_of_the_marginal_after_bos() {
    println!("| checkpoint | ℓ | tokens in y | I | direct | averaged | averaged (K → ∞) | effective contexts |");
    for seed in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let tensors = MODEL.write(dir.path(), seed);
        let server = TestServer::start(dir.path(), SchedulerConfig::default(), ServerConfig::default()).await;
        let source = HttpSource::connect(&server.url, HttpOptions::default()).await.unwrap();
        for split in 1..=3 {
            let documents = sample(&tensors, split, 3 * split, &mut ChaCha8Rng::seed_from_u64(seed));
            let design =
                Design { splits: vec![split], ratios: vec![2, 3], negatives: CONTEXTS, seed, ..Design::default() };
            let plan = Plan::of(DOCUMENTS, design).unwrap();
            let estimates = run(&source, &documents, &plan, None, |_| {}).await.unwrap();
            for (point, curve) in estimates.points.iter().zip(&estimates.context_curves) {
                let exact = information(&source, &documents, split, point.length).await;
                let limit = point.averaged_limit.unwrap();
                let biases = [point.direct, point.averaged.unwrap(), limit].map(|estimate| estimate.value - exact);
                let [direct, averaged, left] = biases;
                let (tokens, effective) = (point.length - split, curve.effective);
                println!(
                    "| {seed} | {split} | {tokens} | {exact:.3} | {direct:.3} | {averaged:.3} | {left:.3} ± {:.3} | \
                     {effective:.1} |",
                    limit.error
                );
                assert!(direct > 0.1, "the marginal after BOS is not biased: {direct}");
                assert!(averaged > 0.0 && averaged < 0.25 * direct, "{averaged}, direct {direct}");
                assert!(left.abs() < 0.25 * direct && left.abs() < 2.0 * limit.error, "{left}, direct {direct}");
            }
        }
        server.stop().await;
    }
}
