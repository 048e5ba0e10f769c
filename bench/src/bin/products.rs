//! `products f32|bf16 ROWSxDEPTHxOUTPUTS...`: prints the operations per second of surprisal's matrix products in that
//! type. Each line is the best of a few runs of one shape.

use std::error::Error;
use std::time::Instant;

use surprisal_engine::{ActivationDtype, KernelBench, WeightDtype};

/// Timed runs per shape, after one warm-up run.
const RUNS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (weights, activations) = match args.next().as_deref() {
        Some("f32") => (WeightDtype::F32, ActivationDtype::F32),
        Some("bf16") => (WeightDtype::Bf16, ActivationDtype::Bf16),
        _ => return Err("usage: products f32|bf16 ROWSxDEPTHxOUTPUTS...".into()),
    };
    for shape in args {
        let sizes: Vec<usize> = shape.split('x').map(str::parse).collect::<Result<_, _>>()?;
        let &[rows, depth, outputs] = sizes.as_slice() else { return Err(format!("invalid shape `{shape}`").into()) };
        let mut probe = KernelBench::gemm(rows, depth, outputs, weights, activations)?;
        probe.run();
        let mut seconds = || {
            let start = Instant::now();
            probe.run();
            start.elapsed().as_secs_f64()
        };
        let best = (0..RUNS).map(|_| seconds()).fold(f64::INFINITY, f64::min);
        println!("{}", probe.operations() / best);
    }
    Ok(())
}
