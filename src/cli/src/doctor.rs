//! `surprisal doctor`: what this machine has, and what a model would need, from its config.json alone.

use std::path::Path;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use surprisal_model::{Footprint, hub};

use crate::error::Error;
use crate::served::{ORACLE, is_gguf, oracle_dir};

/// Device memory in bytes, as the makers count it, and dense bf16 products in TFLOP/s, as their data sheets have it.
const GPUS: [(&str, u64, u64); 5] = [
    ("A100 40 GB", 40_000_000_000, 312),
    ("A100 80 GB", 80_000_000_000, 312),
    ("H100 80 GB", 80_000_000_000, 989),
    ("H200 141 GB", 141_000_000_000, 989),
    ("B200 180 GB", 180_000_000_000, 2250),
];

/// The length that the rate is of, in tokens.
const RATE_LENGTH: u64 = 2048;

/// Bytes of one number in a GPU's KV cache: bf16.
const GPU_KV_BYTES: u64 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model to plan for: `oracle` (built in), a folder, a config.json, or an id on the Hugging Face hub
    #[arg(long)]
    model: Option<String>,
    /// Devices to divide it among [default: the least power of two that holds it]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=4096), requires = "model")]
    tensor_parallel_size: Option<u64>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Model>,
}

#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    vector_bits: usize,
    memory_bytes: Option<u64>,
    nvidia_driver: Option<String>,
}

#[derive(Debug, Serialize)]
struct Model {
    parameters: u64,
    weight_bytes: u64,
    kv_bytes_per_token_bf16: u64,
    kv_bytes_per_token_f32: u64,
    max_length: usize,
    /// Bytes this machine's CPU needs for the weights, in f32.
    cpu_bytes: u64,
    /// Tokens of cache that fit beside them; absent if they do not fit, or the memory is unknown.
    cpu_tokens: Option<u64>,
    gpus: Vec<Gpu>,
}

#[derive(Debug, Serialize)]
struct Gpu {
    kind: &'static str,
    /// The least power of two that holds the weights and one longest sequence, or as many as were asked for.
    count: u64,
    /// Bytes of weights on each.
    weight_bytes: u64,
    /// Tokens of cache beside the weights, on so many; absent if the weights do not fit.
    cache_tokens: Option<u64>,
    /// Tokens a second that so many would score at their peak rate in bf16, in texts of 2048: a bound, not a promise.
    peak_tokens_per_second: u64,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let machine = Machine::look();
    let model = match &args.model {
        Some(model) => Some(plan(&footprint(model)?, &machine, args.tensor_parallel_size)),
        None => None,
    };
    let report = Report { machine, model };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn footprint(model: &str) -> Result<Footprint, Error> {
    if is_gguf(Path::new(model)) {
        let reason = "a plan is made from a config.json, and a GGUF file has none".to_owned();
        return Err(surprisal_model::Error::NotFound { name: model.to_owned(), reason }.into());
    }
    let path = if model == ORACLE { oracle_dir()?.join("config.json") } else { hub::config_json(model)? };
    let json = std::fs::read_to_string(&path).map_err(|source| surprisal_model::Error::Io { path, source })?;
    Ok(Footprint::parse(&json)?)
}

impl Machine {
    fn look() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            vector_bits: surprisal_engine::vector_bits(),
            memory_bytes: memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            nvidia_driver: std::fs::read_to_string("/proc/driver/nvidia/version")
                .ok()
                .and_then(|text| text.lines().next().map(str::to_owned)),
        }
    }
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn plan(footprint: &Footprint, machine: &Machine, ranks: Option<u64>) -> Model {
    let longest = footprint.config.max_positions;
    let cpu_bytes = footprint.parameters * 4;
    let room = machine.memory_bytes.and_then(|memory| (memory - memory / 10).checked_sub(cpu_bytes));
    let gpu = |&(kind, memory, teraflops): &(&'static str, u64, u64)| {
        let count = ranks.unwrap_or_else(|| footprint.devices_needed(memory, GPU_KV_BYTES, longest as u64));
        let weight_bytes = footprint.weight_bytes.div_ceil(count);
        let room = (memory - memory / 10).checked_sub(weight_bytes);
        let token = footprint.kv_bytes_per_token_and_rank(GPU_KV_BYTES, count).max(1);
        let operations = footprint.operations_per_token(RATE_LENGTH.min(longest as u64)).max(1);
        let peak_tokens_per_second =
            (u128::from(teraflops * count) * 1_000_000_000_000 / u128::from(operations)) as u64;
        Gpu { kind, count, weight_bytes, cache_tokens: room.map(|room| room / token), peak_tokens_per_second }
    };
    Model {
        parameters: footprint.parameters,
        weight_bytes: footprint.weight_bytes,
        kv_bytes_per_token_bf16: footprint.kv_bytes_per_token(GPU_KV_BYTES),
        kv_bytes_per_token_f32: footprint.kv_bytes_per_token(4),
        max_length: longest,
        cpu_bytes,
        cpu_tokens: room.map(|room| room / footprint.kv_bytes_per_token(4).max(1)),
        gpus: GPUS.iter().map(gpu).collect(),
    }
}

fn print(report: &Report) {
    let Machine { cores, vector_bits, memory_bytes, nvidia_driver } = &report.machine;
    println!("cpu       {cores} cores, {vector_bits}-bit vectors");
    println!(
        "memory    {}",
        memory_bytes.map_or("unknown".to_owned(), |bytes| format!("{} available", HumanBytes(bytes)))
    );
    println!("gpu       {}", nvidia_driver.as_deref().unwrap_or("no NVIDIA driver; --device auto computes on the CPU"));
    let Some(model) = &report.model else { return };
    println!();
    println!("weights   {} parameters, {} as stored", HumanCount(model.parameters), HumanBytes(model.weight_bytes));
    println!(
        "kv cache  {} a token in bf16, {} in f32; sequences up to {} tokens",
        HumanBytes(model.kv_bytes_per_token_bf16),
        HumanBytes(model.kv_bytes_per_token_f32),
        HumanCount(model.max_length as u64)
    );
    let room = model.cpu_tokens.map_or("that does not fit".to_owned(), |tokens| {
        format!("{} tokens of cache fit beside it", HumanCount(tokens))
    });
    println!("this cpu  {} in f32; {room}", HumanBytes(model.cpu_bytes));
    for Gpu { kind, count, weight_bytes, cache_tokens, peak_tokens_per_second } in &model.gpus {
        let cache = cache_tokens.map_or("they do not fit".to_owned(), |tokens| {
            let peak = HumanCount(*peak_tokens_per_second);
            format!("{} tokens of cache; at their peak {peak} tokens/s", HumanCount(tokens))
        });
        println!("{count:>3} x {kind:<12} {} of weights each; {cache}", HumanBytes(*weight_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        assert_eq!(memory("MemTotal: 8 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(memory("MemAvailable: much"), None);
        assert_eq!(memory(""), None);
    }
}
