//! Benchmarks the engine on a random Llama: documents, targets that share a context, and a warm cache.
//!
//! The model is the small model of the CPU comparisons, with 137 million parameters.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_bench::MODEL;
use surprisal_engine::{CpuBackend, CpuConfig, Engine, Query, SchedulerConfig, Scorer};
use surprisal_model::Checkpoint;
use surprisal_tests::tiny::random_tokens;

fn engine(checkpoint: &Checkpoint) -> Engine {
    let backend = CpuBackend::load(checkpoint, CpuConfig::default()).expect("the model loads");
    let fingerprint = backend.fingerprint().to_owned();
    let device = backend.device();
    Engine::start("random".into(), fingerprint, device, backend, SchedulerConfig::default()).expect("the engine starts")
}

fn ask(runtime: &tokio::runtime::Runtime, engine: &Engine, queries: &[Query]) {
    let answers = runtime.block_on(join_all(queries.iter().map(|query| engine.score(query.clone()))));
    for answer in answers {
        black_box(answer.expect("the query is scored"));
    }
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    MODEL.write(dir.path(), 1);
    let checkpoint = Checkpoint::open(dir.path()).expect("the model opens");
    let engine = engine(&checkpoint);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10);

    for length in [128, 512, 2048] {
        group.throughput(Throughput::Elements(length as u64 - 1));
        group.bench_function(format!("document/{length}"), |bencher| {
            let new = || vec![Query::new(random_tokens(&mut rng, MODEL.vocab, length), 1)];
            bencher.iter_batched(new, |queries| ask(&runtime, &engine, &queries), BatchSize::PerIteration);
        });
    }
    let (targets, context, target) = (32, 256, 16);
    group.throughput(Throughput::Elements(targets * target));
    group.bench_function("pairs/1x32, context 256, target 16", |bencher| {
        let new = || {
            let shared = random_tokens(&mut rng, MODEL.vocab, context);
            let tails = (0..targets).map(|_| random_tokens(&mut rng, MODEL.vocab, target as usize + 1));
            let tokens = tails.map(|tail| shared.iter().chain(&tail[1..]).copied().collect());
            tokens.map(|tokens| Query::new(tokens, context)).collect::<Vec<_>>()
        };
        bencher.iter_batched(new, |queries| ask(&runtime, &engine, &queries), BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(511));
    group.bench_function("document/512, asked before", |bencher| {
        let queries = [Query::new(random_tokens(&mut rng, MODEL.vocab, 512), 1)];
        ask(&runtime, &engine, &queries);
        bencher.iter(|| ask(&runtime, &engine, &queries));
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
