//! Tiny checkpoints of every architecture and option match transformers in float64; see `golden/README.md`.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde_json::Value;
use surprisal_engine::{
    ActivationDtype, CpuBackend, CpuConfig, Engine, Instructions, LoadError, Query, SchedulerConfig, Scorer,
    WeightDtype,
};
use surprisal_model::Checkpoint;

fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("golden").unwrap().map(|entry| entry.unwrap().path());
    let mut fixtures: Vec<_> = entries.filter(|path| path.join("expected.json").exists()).collect();
    fixtures.sort();
    fixtures
}

fn engine(dir: &Path, scheduler: SchedulerConfig, config: CpuConfig) -> Result<Engine, LoadError> {
    let config = CpuConfig { cache_bytes: 64 << 20, ..config };
    let backend = CpuBackend::load(&Checkpoint::open(dir).unwrap(), config)?;
    let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
    Ok(Engine::start("golden".into(), fingerprint, device, backend, scheduler).unwrap())
}

#[tokio::main]
async fn ask(engine: &Engine, queries: &[Query]) -> Vec<Vec<f32>> {
    let answers = join_all(queries.iter().map(|query| engine.score(query.clone()))).await;
    answers.into_iter().map(|answer| answer.unwrap().logprobs).collect()
}

fn cases(dir: &Path) -> Vec<(Query, Vec<f64>)> {
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let case = |case: &Value| {
        let tokens = case["tokens"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as u32).collect();
        let logprobs = case["logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        (Query::new(tokens, 1), logprobs)
    };
    expected["cases"].as_array().unwrap().iter().map(case).collect()
}

/// The error is below 2e-5 for up to 512 tokens, and below 1e-4 for longer texts.
#[test]
fn every_fixture_matches_transformers() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 15, "{} fixtures", fixtures.len());
    for dir in fixtures {
        let engine = engine(&dir, SchedulerConfig::default(), CpuConfig::default()).unwrap();
        for (query, want) in cases(&dir) {
            let got = &ask(&engine, std::slice::from_ref(&query))[0];
            assert_eq!(got.len(), want.len());
            let worst = got.iter().zip(&want).map(|(&got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max);
            let limit = if query.tokens.len() <= 512 { 2e-5 } else { 1e-4 };
            let name = dir.file_name().unwrap().display();
            println!("{name:<28} {:>5} tokens, maximal error {worst:.2e}", query.tokens.len());
            assert!(worst < limit, "{name}, {} tokens: maximal error {worst:e}", query.tokens.len());
        }
    }
}

/// For every option, type and instruction set, results are bit-identical whether a query runs whole or in uneven
/// chunks, alone or in a batch, with a cold or warm cache.
#[test]
fn every_fixture_gives_the_same_bits_in_any_chunks() {
    for dir in fixtures() {
        for instructions in Instructions::ALL {
            // One fixture is enough for the other instruction sets, because all fixtures use the same code for
            // products.
            if instructions != Instructions::Best && !dir.ends_with("llama-default") {
                continue;
            }
            for weights in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::Int8] {
                for activations in [ActivationDtype::F32, ActivationDtype::Bf16] {
                    let weights = Some(weights);
                    check_bits(&dir, CpuConfig { weights, activations, instructions, ..CpuConfig::default() });
                }
            }
        }
    }
}

fn check_bits(dir: &Path, config: CpuConfig) {
    let start = |scheduler| engine(dir, scheduler, config);
    let whole = match start(SchedulerConfig { token_budget: 1 << 20, max_running: 1 }) {
        Err(LoadError::Instructions(instructions)) => {
            return eprintln!("skipped: this machine has no {instructions}");
        }
        loaded => loaded.unwrap(),
    };
    let odd = start(SchedulerConfig { token_budget: 77, max_running: 3 }).unwrap();
    let (query, _) = &cases(dir)[0];
    let later = Query { score_from: query.tokens.len() * 3 / 4, ..query.clone() };
    let shorter = Query::new(query.tokens[..query.tokens.len() / 2].to_vec(), 5);
    let queries = [shorter, later, query.clone()];
    let apart: Vec<_> = queries.iter().map(|query| ask(&whole, std::slice::from_ref(query)).remove(0)).collect();
    assert_eq!(bits(&ask(&odd, &queries)), bits(&apart), "{} {config:?}", dir.display());
    assert_eq!(bits(&ask(&odd, &queries)), bits(&apart), "{} {config:?}, warm", dir.display());
}

fn bits(answers: &[Vec<f32>]) -> Vec<Vec<u32>> {
    answers.iter().map(|answer| answer.iter().map(|x| x.to_bits()).collect()).collect()
}

/// With activations in f32, all machines compute the same bits.
#[test]
fn every_instruction_set_gives_the_same_bits_in_f32() {
    let dir = Path::new("golden/llama-default");
    let queries = [cases(dir).remove(0).0];
    for weights in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::Int8] {
        let answer = |instructions| {
            let config = CpuConfig { weights: Some(weights), instructions, ..CpuConfig::default() };
            match engine(dir, SchedulerConfig::default(), config) {
                Err(LoadError::Instructions(_)) => None,
                loaded => Some(bits(&ask(&loaded.unwrap(), &queries))),
            }
        };
        let best = answer(Instructions::Best);
        for instructions in Instructions::ALL {
            match answer(instructions) {
                Some(got) => assert_eq!(Some(got), best, "{weights:?} {instructions:?}"),
                None => eprintln!("skipped: this machine has no {instructions:?}"),
            }
        }
    }
}
