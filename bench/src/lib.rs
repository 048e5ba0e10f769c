//! Benchmarks; they live in `benches/`, their recorded results in `results/`.
