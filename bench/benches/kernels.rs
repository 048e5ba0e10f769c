//! Benchmarks the CPU kernels in isolation, at the shapes of the CPU comparisons' model, in operations per second.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use surprisal_bench::MODEL;
use surprisal_engine::{ActivationDtype, KernelBench, WeightDtype};

const ROWS: usize = 512;

fn bench(criterion: &mut Criterion, name: &str, probe: Result<KernelBench, impl std::fmt::Debug>) {
    let mut probe = probe.expect("the threads start");
    let mut group = criterion.benchmark_group("kernels");
    if probe.operations() > 0.0 {
        group.throughput(Throughput::Elements(probe.operations() as u64));
    }
    group.sample_size(20).bench_function(name, |bencher| bencher.iter(|| probe.run()));
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    let types = [
        ("f32", WeightDtype::F32, ActivationDtype::F32),
        ("bf16 x f32", WeightDtype::Bf16, ActivationDtype::F32),
        ("bf16 x bf16", WeightDtype::Bf16, ActivationDtype::Bf16),
        ("int8 x bf16", WeightDtype::Int8, ActivationDtype::Bf16),
    ];
    for (name, weights, activations) in types {
        for (rows, depth, outputs) in [
            (ROWS, MODEL.hidden, 2 * MODEL.intermediate),
            (ROWS, MODEL.intermediate, MODEL.hidden),
            (1, MODEL.hidden, 2 * MODEL.intermediate),
        ] {
            let probe = KernelBench::gemm(rows, depth, outputs, weights, activations);
            bench(criterion, &format!("product {name}, {rows} x {depth} x {outputs}"), probe);
        }
        let probe = KernelBench::head(ROWS, MODEL.hidden, MODEL.vocab, weights, activations);
        bench(criterion, &format!("head {name}, {ROWS} rows"), probe);
    }
    for length in [ROWS, 2048, 8192] {
        let probe = KernelBench::attention(ROWS, length, MODEL.heads, MODEL.kv_heads, MODEL.head_dim);
        bench(criterion, &format!("attention, last {ROWS} of {length}"), probe);
    }
    let rotation = KernelBench::rotation(ROWS, MODEL.heads + MODEL.kv_heads, MODEL.head_dim);
    bench(criterion, &format!("rotation, {ROWS} rows"), rotation);
    bench(criterion, "norm and gate, 512 rows", KernelBench::elementwise(ROWS, MODEL.intermediate));
}

criterion_group!(all, benches);
criterion_main!(all);
