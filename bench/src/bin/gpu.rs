//! `gpu --device shim|cuda:N --out FOLDER`: what must hold of a GPU and how fast it is, as JSON and a Markdown table.

use std::error::Error;
use std::path::PathBuf;

use serde_json::{Value, json};
use surprisal_bench::gpu::{ALL_PRODUCTS, Check, Sizes, Timing, conformance, timings};
use surprisal_bench::prefill::{RandomWeights, prefill};
use surprisal_engine::cuda::{Accelerator, Gpu, Precision, Shim};
use surprisal_kernels::cpu::Order;

const USAGE: &str = "usage: gpu --device shim|cuda:N --out FOLDER";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [flag, device, out, folder] = args.as_slice() else { return Err(USAGE.into()) };
    if flag != "--device" || out != "--out" {
        return Err(USAGE.into());
    }
    let report = match device.strip_prefix("cuda:") {
        Some(index) => {
            let index = index.parse()?;
            measure(|| Ok(Gpu::open(index, None)?), Sizes::LLAMA_8B, &[2048, 8192], 20)?
        }
        None if device == "shim" => measure(|| Ok(Shim::new(1 << 28, Order::Forward)), Sizes::TINY, &[130, 200], 1)?,
        None => return Err(USAGE.into()),
    };
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("gpu.json"), serde_json::to_string_pretty(&report.json())?)?;
    let table = report.table();
    std::fs::write(folder.join("gpu.md"), &table)?;
    print!("{table}");
    match report.checks.iter().filter(|check| check.failure.is_some()).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} checks failed", report.checks.len()).into()),
    }
}

/// All that was found.
struct Report {
    device: String,
    checks: Vec<Check>,
    timings: Vec<Timing>,
    prefills: Vec<Scored>,
}

/// Scoring of a whole text by a whole model.
struct Scored {
    /// In which weights and cache are.
    precision: &'static str,
    tokens: usize,
    milliseconds: f64,
    /// What its products take alone, over that.
    share: f64,
    teraflops: f64,
}

/// Each part on a device of its own, whose memory goes back after it.
fn measure<A: Accelerator>(
    open: impl Fn() -> Result<A, Box<dyn Error>>,
    sizes: Sizes,
    lengths: &[usize],
    repeats: u32,
) -> Result<Report, Box<dyn Error>> {
    let mut device = open()?;
    let name = format!("{}, {}", device.name(), device.numerics());
    let mut checks = conformance(&mut device)?;
    drop(device);
    let (mut all, mut prefills) = (Vec::new(), Vec::new());
    let weights = RandomWeights::new(&sizes.config())?;
    for (precision, kind) in [("bf16", Precision::Bf16), ("fp8", Precision::Fp8)] {
        let mut products = Vec::new();
        for &tokens in lengths {
            let timings = timings(&mut open()?, sizes, tokens, repeats, kind == Precision::Fp8)?;
            products.extend(timings.iter().find(|t| t.name.starts_with(ALL_PRODUCTS)).map(|t| t.milliseconds));
            all.extend(timings);
        }
        let found = prefill(open()?, &weights, lengths, repeats as usize, kind)?;
        for (how, milliseconds) in ["launch by launch", "as a graph"].into_iter().zip(found.single) {
            let teraflops = 1e-9 * weights.operations() as f64 / milliseconds;
            all.push(Timing {
                name: format!("one token through all layers, {precision}, {how}"),
                milliseconds,
                teraflops,
            });
        }
        checks.extend(
            found.checks.into_iter().map(|check| Check { name: format!("{precision}, {}", check.name), ..check }),
        );
        prefills.extend(found.prefills.iter().zip(products).map(|(timed, products)| Scored {
            precision,
            tokens: timed.tokens,
            milliseconds: timed.milliseconds,
            share: products / timed.milliseconds,
            teraflops: 1e-9 * (timed.tokens * weights.operations()) as f64 / timed.milliseconds,
        }));
    }
    Ok(Report { device: name, checks, timings: all, prefills })
}

impl Report {
    fn json(&self) -> Value {
        let check = |check: &Check| json!({"name": check.name, "failure": check.failure});
        let timing = |t: &Timing| json!({"name": t.name, "milliseconds": t.milliseconds, "teraflops": t.teraflops});
        let scored = |s: &Scored| {
            let rate = 1e3 * s.tokens as f64 / s.milliseconds;
            json!({"weights": s.precision, "tokens": s.tokens, "milliseconds": s.milliseconds, "tokens_per_second": rate,
                "share_of_products": s.share})
        };
        json!({
            "device": self.device,
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
            "timings": self.timings.iter().map(timing).collect::<Vec<_>>(),
            "prefill": self.prefills.iter().map(scored).collect::<Vec<_>>(),
        })
    }

    fn table(&self) -> String {
        let mut text = format!("{}\n\n| what must hold | |\n| --- | --- |\n", self.device);
        for Check { name, failure } in &self.checks {
            text += &format!("| {name} | {} |\n", failure.as_deref().unwrap_or("holds"));
        }
        text += "\n| what ran | ms | TFLOP/s |\n| --- | ---: | ---: |\n";
        for Timing { name, milliseconds, teraflops } in &self.timings {
            text += &format!("| {name} | {milliseconds:.3} | {teraflops:.1} |\n");
        }
        text += "\n| scoring all of a text | ms | tokens/s | TFLOP/s | its products alone |\n";
        text += "| --- | ---: | ---: | ---: | ---: |\n";
        for Scored { precision, tokens, milliseconds, share, teraflops } in &self.prefills {
            let rate = 1e3 * *tokens as f64 / milliseconds;
            let share = 100.0 * share;
            text += &format!(
                "| {tokens} tokens, {precision} | {milliseconds:.2} | {rate:.0} | {teraflops:.1} | {share:.0} % |\n"
            );
        }
        text
    }
}
