//! `gpu --device shim|cuda:N --out FOLDER`: what must hold of a GPU and how fast it is, as JSON and a Markdown table.

use std::error::Error;
use std::path::PathBuf;

use serde_json::json;
use surprisal_bench::gpu::{Check, LLAMA_8B, TINY, Timing, conformance, timings};
use surprisal_engine::cuda::{Accelerator, Gpu, Shim};
use surprisal_kernels::cpu::Order;

const USAGE: &str = "usage: gpu --device shim|cuda:N --out FOLDER";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [flag, device, out, folder] = args.as_slice() else { return Err(USAGE.into()) };
    if flag != "--device" || out != "--out" {
        return Err(USAGE.into());
    }
    let (name, checks, timings) = match device.strip_prefix("cuda:") {
        Some(index) => {
            let index = index.parse()?;
            measure(|| Ok(Gpu::open(index, None)?), true)?
        }
        None if device == "shim" => measure(|| Ok(Shim::new(1 << 30, Order::Forward)), false)?,
        None => return Err(USAGE.into()),
    };
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    let check = |check: &Check| json!({"name": check.name, "failure": check.failure});
    let timing = |t: &Timing| json!({"name": t.name, "milliseconds": t.milliseconds, "teraflops": t.teraflops});
    let report = json!({
        "device": name,
        "checks": checks.iter().map(check).collect::<Vec<_>>(),
        "timings": timings.iter().map(timing).collect::<Vec<_>>(),
    });
    std::fs::write(folder.join("gpu.json"), serde_json::to_string_pretty(&report)?)?;
    let table = table(&name, &checks, &timings);
    std::fs::write(folder.join("gpu.md"), &table)?;
    print!("{table}");
    match checks.iter().filter(|check| check.failure.is_some()).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} checks failed", checks.len()).into()),
    }
}

type Measured = (String, Vec<Check>, Vec<Timing>);

/// Each part on a device of its own, whose memory goes back after it.
fn measure<A: Accelerator>(
    open: impl Fn() -> Result<A, Box<dyn Error>>,
    is_gpu: bool,
) -> Result<Measured, Box<dyn Error>> {
    let mut device = open()?;
    let name = format!("{}, {}", device.name(), device.numerics());
    let checks = conformance(&mut device)?;
    drop(device);
    let (sizes, lengths, repeats): (_, &[usize], _) =
        if is_gpu { (LLAMA_8B, &[2048, 8192], 20) } else { (TINY, &[130], 1) };
    let mut all = Vec::new();
    for &tokens in lengths {
        all.extend(timings(&mut open()?, sizes, tokens, repeats)?);
    }
    Ok((name, checks, all))
}

fn table(name: &str, checks: &[Check], timings: &[Timing]) -> String {
    let mut text = format!("{name}\n\n| what must hold | |\n| --- | --- |\n");
    for Check { name, failure } in checks {
        text += &format!("| {name} | {} |\n", failure.as_deref().unwrap_or("holds"));
    }
    text += "\n| what ran | ms | TFLOP/s |\n| --- | ---: | ---: |\n";
    for Timing { name, milliseconds, teraflops } in timings {
        text += &format!("| {name} | {milliseconds:.3} | {teraflops:.1} |\n");
    }
    text
}
