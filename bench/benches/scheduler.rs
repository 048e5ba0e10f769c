//! Benchmarks the scheduler and its cache with a model that responds immediately, to measure their overhead per token.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_bench::MODEL;
use surprisal_engine::{Limits, Query, QueryId, Scheduler, SchedulerConfig, ScoreRow, TokenChoice, TokenScore};
use surprisal_tests::tiny::random_tokens;

/// The engine's limits, with a cache of 131,072 tokens: 4096 blocks of 32.
const LIMITS: Limits = Limits { vocab_size: MODEL.vocab, max_length: 8192, blocks: 4096 };

/// Submits all queries, and runs passes until all are complete.
fn ask(scheduler: &mut Scheduler, queries: &[Query]) {
    for (id, query) in queries.iter().enumerate() {
        scheduler.submit(id as QueryId, query.clone()).expect("the query fits");
    }
    while !scheduler.is_idle() {
        let scheduled = scheduler.next_batch();
        let scores = scheduled.batch.scores.iter().map(score).collect();
        black_box(scheduler.complete(scheduled, Ok(scores)));
    }
}

fn score(row: &ScoreRow) -> TokenScore {
    let token = match row.choice {
        TokenChoice::Given(token) => token,
        TokenChoice::Sampled(_) => 0,
    };
    TokenScore { token, logprob: -1.0, position: None }
}

fn benches(criterion: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut scheduler = Scheduler::new(LIMITS, SchedulerConfig::default());
    let mut group = criterion.benchmark_group("scheduler");
    let document = |rng: &mut ChaCha8Rng, length| Query::new(random_tokens(rng, MODEL.vocab, length), 1);

    // The cache fills up, so that each query must evict blocks, as on a server that has run for a while.
    group.throughput(Throughput::Elements(8 * 512));
    group.bench_function("8 new documents of 512", |bencher| {
        let new = || (0..8).map(|_| document(&mut rng, 512)).collect::<Vec<_>>();
        bencher.iter_batched(new, |queries| ask(&mut scheduler, &queries), BatchSize::SmallInput);
    });
    group.throughput(Throughput::Elements(64 * 32));
    group.bench_function("64 targets of 32 after one context of 256", |bencher| {
        let new = || {
            let context = random_tokens(&mut rng, MODEL.vocab, 256);
            let targets = (0..64).map(|_| random_tokens(&mut rng, MODEL.vocab, 32));
            let tokens = targets.map(|target| context.iter().chain(&target).copied().collect());
            tokens.map(|tokens| Query::new(tokens, 256)).collect::<Vec<_>>()
        };
        bencher.iter_batched(new, |queries| ask(&mut scheduler, &queries), BatchSize::SmallInput);
    });
    for length in [128, 2048] {
        group.throughput(Throughput::Elements(length as u64));
        group.bench_function(format!("a document of {length} found in the cache"), |bencher| {
            let queries = [document(&mut rng, length)];
            ask(&mut scheduler, &queries);
            bencher.iter(|| ask(&mut scheduler, &queries));
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
