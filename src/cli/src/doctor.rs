//! `surprisal doctor`: what this machine has, and what a model would need, from its config.json alone.

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use surprisal_model::{Footprint, hub};

use crate::error::Error;

/// Device memory in bytes, as the makers count it.
const GPUS: [(&str, u64); 5] = [
    ("A100 40 GB", 40_000_000_000),
    ("A100 80 GB", 80_000_000_000),
    ("H100 80 GB", 80_000_000_000),
    ("H200 141 GB", 141_000_000_000),
    ("B200 180 GB", 180_000_000_000),
];

/// Bytes of one number in a GPU's KV cache: bf16.
const GPU_KV_BYTES: u64 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model to plan for: a folder, a config.json, or an id on the Hugging Face hub
    #[arg(long)]
    model: Option<String>,
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
    /// The least power of two that holds the weights and one longest sequence.
    count: u64,
    /// Tokens of cache beside the weights, on so many.
    cache_tokens: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let machine = Machine::look();
    let model = match &args.model {
        Some(model) => Some(plan(&Footprint::parse(&std::fs::read_to_string(hub::config_json(model)?)?)?, &machine)),
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

fn plan(footprint: &Footprint, machine: &Machine) -> Model {
    let longest = footprint.config.max_positions;
    let cpu_bytes = footprint.parameters * 4;
    let room = machine.memory_bytes.and_then(|memory| (memory - memory / 10).checked_sub(cpu_bytes));
    let gpu = |&(kind, memory): &(&'static str, u64)| {
        let count = footprint.devices_needed(memory, GPU_KV_BYTES, longest as u64);
        Gpu { kind, count, cache_tokens: footprint.tokens_that_fit(count, memory, GPU_KV_BYTES) }
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
    for Gpu { kind, count, cache_tokens } in &model.gpus {
        println!("{count:>3} x {kind:<12} {} tokens of cache", HumanCount(cache_tokens.unwrap_or(0)));
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
