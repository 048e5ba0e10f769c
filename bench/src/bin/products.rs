//! `products f32|bf16 ROWSxDEPTHxOUTPUTS...`: operations a second of our products of that type, one line a shape, the best of a few runs.

use std::error::Error;
use std::time::Instant;

use surprisal_engine::{ActivationDtype, KernelBench, WeightDtype};

/// Runs of each shape, after one that is not counted.
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
        let &[rows, depth, outputs] = sizes.as_slice() else { return Err(format!("{shape} is no shape").into()) };
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
