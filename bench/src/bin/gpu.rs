//! `gpu --device shim|cuda:N --out FOLDER [--hopper]`: checks a GPU and measures its speed. Writes gpu.json and gpu.md.
//! With `--hopper`, times only the attention kernels for Hopper, and writes hopper.json and hopper.md. That is a
//! separate run, because a process can no longer use its GPU after a fault.

use std::error::Error;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use surprisal_bench::gpu::attention::{HOPPER, attention, has_hopper, hopper_attention};
use surprisal_bench::gpu::conformance::check_device;
use surprisal_bench::gpu::products::{all_products, timings};
use surprisal_bench::gpu::{Check, Sizes, Timing};
use surprisal_bench::prefill::{ModelResults, RandomWeights, measure_model};
use surprisal_engine::cuda::{Accelerator, Gpu, Precision, Shim};
use surprisal_kernels::cpu::Order;

const USAGE: &str = "usage: gpu --device shim|cuda:N --out FOLDER [--hopper]";

/// The benchmarks to run, and their repetitions.
#[derive(Clone, Copy, Debug)]
struct Extent {
    sizes: Sizes,
    lengths: &'static [usize],
    repeats: u32,
}

const LLAMA_8B: Extent = Extent { sizes: Sizes::LLAMA_8B, lengths: &[2048, 8192], repeats: 20 };

const TINY: Extent = Extent { sizes: Sizes::TINY, lengths: &[130, 200], repeats: 1 };

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [flag, device, out, folder, rest @ ..] = args.as_slice() else { return Err(USAGE.into()) };
    let hopper = match rest {
        [] => false,
        [only] if only == "--hopper" => true,
        _ => return Err(USAGE.into()),
    };
    if flag != "--device" || out != "--out" {
        return Err(USAGE.into());
    }
    let folder = Path::new(folder);
    match device.strip_prefix("cuda:") {
        Some(index) => {
            let index = index.parse()?;
            // The tests use the same folder.
            let kernels = std::env::temp_dir().join("surprisal-test-kernels");
            report(folder, hopper, || Ok(Gpu::open(index, Some(&kernels))?), LLAMA_8B)
        }
        None if device == "shim" => report(folder, hopper, || Ok(Shim::new(1 << 28, Order::Forward)), TINY),
        None => Err(USAGE.into()),
    }
}

/// Writes one of the two reports. Each part opens the device, and frees the device's memory at the end.
fn report<A: Accelerator>(
    folder: &Path,
    hopper: bool,
    open: impl Fn() -> Result<A, Box<dyn Error>>,
    extent: Extent,
) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let mut report = Report::new(folder.join(if hopper { "hopper" } else { "gpu" }), &open()?);
    if hopper {
        measure_hopper(&mut report, open, extent)?;
    } else {
        measure(&mut report, open, extent)?;
    }
    print!("{}", report.table());
    match report.checks.iter().filter(|check| check.failure.is_some()).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} checks failed", report.checks.len()).into()),
    }
}

fn measure<A: Accelerator>(
    report: &mut Report,
    open: impl Fn() -> Result<A, Box<dyn Error>>,
    Extent { sizes, lengths, repeats }: Extent,
) -> Result<(), Box<dyn Error>> {
    report.part("copies and products", |report| {
        report.checks.extend(check_device(&mut open()?));
        Ok(())
    })?;
    let weights = RandomWeights::new(&sizes.config())?;
    for (precision, kind) in [("bf16", Precision::Bf16), ("fp8", Precision::Fp8)] {
        for &tokens in lengths {
            report.part(&format!("products in {precision}, T = {tokens}"), |report| {
                report.timings.extend(timings(&mut open()?, sizes, tokens, repeats, kind == Precision::Fp8)?);
                Ok(())
            })?;
        }
        report.part(&format!("a whole model in {precision}"), |report| {
            let results = measure_model(open()?, &weights, lengths, repeats as usize, kind)?;
            report.add_model(precision, weights.operations(), results);
            Ok(())
        })?;
    }
    for &tokens in lengths {
        report.part(&format!("attention, T = {tokens}"), |report| {
            report.timings.push(attention(&mut open()?, sizes, tokens, repeats)?);
            Ok(())
        })?;
    }
    Ok(())
}

fn measure_hopper<A: Accelerator>(
    report: &mut Report,
    open: impl Fn() -> Result<A, Box<dyn Error>>,
    Extent { sizes, lengths, repeats }: Extent,
) -> Result<(), Box<dyn Error>> {
    if !has_hopper(&open()?) {
        println!("skipped: this is not a Hopper GPU");
        return Ok(());
    }
    for kernel in HOPPER {
        for &tokens in lengths {
            report.part(&format!("attention by {kernel}, T = {tokens}"), |report| {
                report.timings.push(hopper_attention(&mut open()?, sizes, tokens, repeats, kernel)?);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// The results so far.
struct Report {
    /// Path of the report's files, without extension.
    path: PathBuf,
    device: String,
    checks: Vec<Check>,
    timings: Vec<Timing>,
    prefills: Vec<Scored>,
}

/// The time it takes to score a whole text with a whole model.
struct Scored {
    /// Precision of the weights and the cache.
    precision: &'static str,
    tokens: usize,
    milliseconds: f64,
    /// The fraction of the time that matrix products take; `None` if the products were not timed.
    share: Option<f64>,
    teraflops: f64,
}

impl Report {
    fn new<A: Accelerator>(path: PathBuf, device: &A) -> Self {
        let device = format!("{}, {}", device.name(), device.numerics());
        Self { path, device, checks: Vec::new(), timings: Vec::new(), prefills: Vec::new() }
    }

    /// Runs a part and writes the report so far, because the next part may crash the process. An error counts as a
    /// failed check.
    fn part(
        &mut self,
        name: &str,
        run: impl FnOnce(&mut Self) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        eprintln!("{name} ...");
        if let Err(error) = run(self) {
            self.checks.push(Check { name: name.to_owned(), failure: Some(error.to_string()) });
        }
        std::fs::write(self.path.with_extension("json"), serde_json::to_string_pretty(&self.json())?)?;
        std::fs::write(self.path.with_extension("md"), self.table())?;
        Ok(())
    }

    /// Adds the results of a whole model, which needs `operations` operations to score a token.
    fn add_model(&mut self, precision: &'static str, operations: usize, results: ModelResults) {
        for (how, milliseconds) in ["launch by launch", "as a graph"].into_iter().zip(results.single_token) {
            let name = format!("one token through all layers, {precision}, {how}");
            self.timings.push(Timing { name, milliseconds, teraflops: 1e-9 * operations as f64 / milliseconds });
        }
        let named = |check: Check| Check { name: format!("{precision}, {}", check.name), ..check };
        self.checks.extend(results.checks.into_iter().map(named));
        for timed in results.prefills {
            let products = all_products(precision, timed.tokens);
            let products = self.timings.iter().find(|timing| timing.name == products);
            self.prefills.push(Scored {
                precision,
                tokens: timed.tokens,
                milliseconds: timed.milliseconds,
                share: products.map(|products| products.milliseconds / timed.milliseconds),
                teraflops: 1e-9 * (timed.tokens * operations) as f64 / timed.milliseconds,
            });
        }
    }

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
        let mut text = format!("{}\n\n| check | result |\n| --- | --- |\n", self.device);
        for Check { name, failure } in &self.checks {
            text += &format!("| {name} | {} |\n", failure.as_deref().unwrap_or("passed"));
        }
        text += "\n| operation | ms | TFLOP/s |\n| --- | ---: | ---: |\n";
        for Timing { name, milliseconds, teraflops } in &self.timings {
            text += &format!("| {name} | {milliseconds:.3} | {teraflops:.1} |\n");
        }
        text += "\n| scoring a whole text | ms | tokens/s | TFLOP/s | share of products |\n";
        text += "| --- | ---: | ---: | ---: | ---: |\n";
        for Scored { precision, tokens, milliseconds, share, teraflops } in &self.prefills {
            let rate = 1e3 * *tokens as f64 / milliseconds;
            let share = share.map_or_else(|| "unknown".to_owned(), |share| format!("{:.0} %", 100.0 * share));
            text += &format!(
                "| {tokens} tokens, {precision} | {milliseconds:.2} | {rate:.0} | {teraflops:.1} | {share} |\n"
            );
        }
        text
    }
}
