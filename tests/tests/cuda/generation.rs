//! The log-probabilities of generated tokens have the same bits as those of scored tokens.

use futures_util::future::join_all;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_engine::{
    Engine, GeneratedToken, Generation, PositionOptions, Query, QueryEvent, Sampling, SchedulerConfig, Scorer,
};
use surprisal_kernels::cpu::Order;
use surprisal_tests::tiny::{TinyLlama, random_tokens};

use super::{ask, bits, engine};

#[tokio::main]
async fn write(engine: &Engine, query: &Query, generation: &Generation) -> Vec<GeneratedToken> {
    written(engine, query.clone(), generation.clone()).await
}

async fn written(engine: &Engine, query: Query, generation: Generation) -> Vec<GeneratedToken> {
    let mut events = engine.generate(query, generation);
    let mut tokens = Vec::new();
    while let Some(event) = events.recv().await {
        if let QueryEvent::Token(token) = event.unwrap() {
            tokens.push(token);
        }
    }
    tokens
}

#[tokio::main]
pub(super) async fn write_all(engine: &Engine, prompts: &[Vec<u32>], lengths: &[usize]) -> Vec<Vec<GeneratedToken>> {
    let write = |(prompt, &max_tokens): (&Vec<u32>, &usize)| {
        let generation = Generation {
            max_tokens,
            sampling: Sampling::GREEDY,
            stop: Vec::new(),
            options: PositionOptions::default(),
        };
        written(engine, Query::new(prompt.clone(), 1), generation)
    };
    join_all(prompts.iter().zip(lengths).map(write)).await
}

/// A sampled token's log-probability has the same bits as when the token is scored, with a cold or warm cache.
/// Different seeds give different tokens.
#[test]
fn generated_tokens_have_the_bits_of_scored_ones() {
    let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 6);
    let prompt = random_tokens(&mut ChaCha8Rng::seed_from_u64(6), model.vocab, 40);
    let sampled = Sampling { temperature: 1.0, top_p: 0.9, top_k: 0, seed: 3 };
    for (sampling, token_budget) in [(Sampling::GREEDY, 512), (sampled, 7)] {
        let fresh = || engine(dir.path(), Order::Forward, 16 << 20, SchedulerConfig { token_budget, max_running: 4 });
        let options = PositionOptions { top: 1, rank: true, ..PositionOptions::default() };
        let generation = Generation { max_tokens: 30, sampling, stop: Vec::new(), options };
        let (first, query) = (fresh(), Query::new(prompt.clone(), 1));
        let tokens = write(&first, &query, &generation);
        assert_eq!(tokens.len(), 30);
        assert_eq!(write(&first, &query, &generation), tokens, "from a warm cache");
        let whole = prompt.iter().copied().chain(tokens.iter().map(|token| token.id)).collect();
        let scored = ask(&fresh(), &[Query::new(whole, 40)]).remove(0);
        assert_eq!(bits(&scored), tokens.iter().map(|token| token.logprob.to_bits()).collect::<Vec<_>>());
        if sampling == Sampling::GREEDY {
            let best = |token: &GeneratedToken| token.position.rank == Some(1) && token.position.top[0].0 == token.id;
            assert!(tokens.iter().all(best));
        } else {
            let other = Generation { sampling: Sampling { seed: 4, ..sampling }, ..generation };
            assert_ne!(write(&first, &query, &other), tokens);
        }
    }
}
