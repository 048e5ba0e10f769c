//! Scores a target given a context, from Rust: opens a checkpoint, starts an engine, and prints each token's
//! log-probability.
//!
//!     cargo run --release -p surprisal-engine --example score
//!     cargo run --release -p surprisal-engine --example score -- FOLDER "The capital of France is" " Paris"
//!
//! FOLDER is a checkpoint in the Hugging Face layout. Without arguments, the example writes a small oracle to the cache
//! directory: a model of texts whose facts never contradict each other. It then scores a fact that the context already
//! states, followed by the opposite fact.

use std::error::Error;
use std::path::PathBuf;

use surprisal_engine::{CpuBackend, CpuConfig, Engine, Query, SchedulerConfig, Scorer};
use surprisal_model::oracle::{self, OracleSpec};
use surprisal_model::{Checkpoint, TextTokenizer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = match arguments.first() {
        Some(folder) => PathBuf::from(folder),
        None => oracle::ensure(&OracleSpec { probabilities: vec![0.25; 4], doubt: 1e-6, context_length: 64 })?,
    };
    let checkpoint = Checkpoint::open(&dir)?;
    let tokenizer = TextTokenizer::open(&dir, checkpoint.config())?;
    let (context, target) = match &arguments[..] {
        // Tokens 4 and 5 state opposite facts.
        [] => (tokenizer.decode(&[0, 4])?, tokenizer.decode(&[4, 5])?),
        [_, context, target] => (context.clone(), target.clone()),
        _ => return Err("usage: score [FOLDER CONTEXT TARGET]".into()),
    };

    let backend = CpuBackend::load(&checkpoint, CpuConfig { cache_bytes: 256 << 20, ..CpuConfig::default() })?;
    let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
    let engine = Engine::start("example".to_owned(), fingerprint, device, backend, SchedulerConfig::default())?;

    // One sequence: BOS if the model uses it, the context, and the target, which the engine scores.
    let mut tokens: Vec<u32> = tokenizer.prefix().to_vec();
    tokens.extend(tokenizer.encode(&context)?);
    let score_from = tokens.len();
    tokens.extend(tokenizer.encode(&target)?);
    let scores = engine.score(Query::new(tokens.clone(), score_from)).await?;

    println!("context {context:?}, target {target:?}");
    for (&token, logprob) in tokens[score_from..].iter().zip(&scores.logprobs) {
        println!("{logprob:>12.6}  {:?}", tokenizer.decode(&[token])?);
    }
    println!("{:>12.6}  nats in total", scores.sum());
    Ok(())
}
