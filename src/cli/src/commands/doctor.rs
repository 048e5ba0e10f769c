//! `surprisal doctor`: describes this machine, and plans hardware for a model from its config.json.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use surprisal_model::{Footprint, hub};

use crate::error::Error;
use crate::model::location::{ORACLE, is_gguf, oracle_dir};
use crate::output::print_result;

/// A kind of GPU.
struct GpuKind {
    name: &'static str,
    /// Device memory in bytes, as the manufacturer states it.
    memory_bytes: u64,
    /// Peak rate of dense bf16 matrix products in TFLOP/s, from the data sheet.
    teraflops: u64,
}

const GPU_KINDS: [GpuKind; 5] = [
    GpuKind { name: "A100 40 GB", memory_bytes: 40_000_000_000, teraflops: 312 },
    GpuKind { name: "A100 80 GB", memory_bytes: 80_000_000_000, teraflops: 312 },
    GpuKind { name: "H100 80 GB", memory_bytes: 80_000_000_000, teraflops: 989 },
    GpuKind { name: "H200 141 GB", memory_bytes: 141_000_000_000, teraflops: 989 },
    GpuKind { name: "B200 180 GB", memory_bytes: 180_000_000_000, teraflops: 2250 },
];

/// Length of the texts that the peak rate assumes, in tokens.
const RATE_LENGTH: u64 = 2048;

/// Bytes of one value in a GPU's KV cache, in bf16.
const GPU_KV_BYTES: u64 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model to plan for: `oracle` (built in), a folder, a config.json, or a model id on the Hugging Face hub
    #[arg(long)]
    model: Option<String>,
    /// Number of devices to divide the model among [default: the smallest power of two that is enough]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=4096), requires = "model")]
    tensor_parallel_size: Option<u64>,
    /// Print the output as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct DoctorReport {
    machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelPlan>,
}

#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    vector_bits: usize,
    memory_bytes: Option<u64>,
    nvidia_driver: Option<String>,
}

#[derive(Debug, Serialize)]
struct ModelPlan {
    parameters: u64,
    weight_bytes: u64,
    kv_bytes_per_token_bf16: u64,
    kv_bytes_per_token_f32: u64,
    max_length: usize,
    /// Size of the weights in f32, as on this machine's CPU, in bytes.
    cpu_bytes: u64,
    /// Tokens of KV cache that fit in the remaining memory; `None` if the weights do not fit or the memory is unknown.
    cpu_tokens: Option<u64>,
    gpus: Vec<GpuPlan>,
}

#[derive(Debug, Serialize)]
struct GpuPlan {
    kind: &'static str,
    /// Number of GPUs: as given, or the smallest power of two that is enough for the weights and one sequence of the
    /// maximum length.
    count: u64,
    /// Size of the weights on each GPU, in bytes.
    weight_bytes: u64,
    /// Tokens of KV cache that fit in the remaining memory; `None` if the weights do not fit.
    cache_tokens: Option<u64>,
    /// Upper bound on tokens scored per second: the peak bf16 rate of these GPUs, for texts of [`RATE_LENGTH`] tokens.
    peak_tokens_per_second: u64,
}

/// Describes the machine, and plans hardware for the model if one is given.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let machine = Machine::detect();
    let model = match &args.model {
        Some(model) => Some(plan_model(&read_footprint(model)?, &machine, args.tensor_parallel_size)),
        None => None,
    };
    let report = DoctorReport { machine, model };
    print_result(&report, &report, args.json)
}

/// Reads the footprint of a model from its config.json; downloads the file if necessary.
fn read_footprint(model: &str) -> Result<Footprint, Error> {
    if is_gguf(Path::new(model)) {
        let reason = "a plan needs config.json, which a GGUF file does not contain; pass a folder or hub id".to_owned();
        return Err(surprisal_model::Error::NotFound { name: model.to_owned(), reason }.into());
    }
    let path = if model == ORACLE { oracle_dir()?.join("config.json") } else { hub::config_json(model)? };
    let json = std::fs::read_to_string(&path).map_err(|source| surprisal_model::Error::Io { path, source })?;
    Ok(Footprint::parse(&json)?)
}

impl Machine {
    /// Reads what the operating system reports about this machine.
    fn detect() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            vector_bits: surprisal_engine::vector_bits(),
            memory_bytes: available_memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            nvidia_driver: std::fs::read_to_string("/proc/driver/nvidia/version")
                .ok()
                .and_then(|text| text.lines().next().map(str::to_owned)),
        }
    }
}

/// Parses `MemAvailable` in /proc/meminfo. Returns it in bytes.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Plans hardware for a model: this machine's CPU, and each kind of GPU.
fn plan_model(footprint: &Footprint, machine: &Machine, ranks: Option<u64>) -> ModelPlan {
    let cpu_bytes = footprint.parameters * 4;
    let cpu_room = machine.memory_bytes.and_then(|memory| Footprint::usable_memory(memory).checked_sub(cpu_bytes));
    ModelPlan {
        parameters: footprint.parameters,
        weight_bytes: footprint.weight_bytes,
        kv_bytes_per_token_bf16: footprint.kv_bytes_per_token(GPU_KV_BYTES),
        kv_bytes_per_token_f32: footprint.kv_bytes_per_token(4),
        max_length: footprint.config.max_positions,
        cpu_bytes,
        cpu_tokens: cpu_room.map(|room| room / footprint.kv_bytes_per_token(4).max(1)),
        gpus: GPU_KINDS.iter().map(|kind| plan_gpus(footprint, kind, ranks)).collect(),
    }
}

/// Plans GPUs of one kind for a model: one per rank, or as few as the model fits on if `ranks` is `None`.
fn plan_gpus(footprint: &Footprint, kind: &GpuKind, ranks: Option<u64>) -> GpuPlan {
    let max_length = footprint.config.max_positions as u64;
    let fewest = || footprint.devices_needed(kind.memory_bytes, GPU_KV_BYTES, max_length);
    let count = ranks.unwrap_or_else(fewest);
    let weight_bytes = footprint.weight_bytes.div_ceil(count);
    let room = Footprint::usable_memory(kind.memory_bytes).checked_sub(weight_bytes);
    let token_bytes = footprint.kv_bytes_per_token_and_rank(GPU_KV_BYTES, count).max(1);
    let operations = footprint.operations_per_token(RATE_LENGTH.min(max_length)).max(1);
    let peak_operations = u128::from(kind.teraflops * count) * 1_000_000_000_000;
    GpuPlan {
        kind: kind.name,
        count,
        weight_bytes,
        cache_tokens: room.map(|room| room / token_bytes),
        peak_tokens_per_second: (peak_operations / u128::from(operations)) as u64,
    }
}

impl Display for DoctorReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Machine { cores, vector_bits, memory_bytes, nvidia_driver } = &self.machine;
        writeln!(f, "cpu       {cores} cores, {vector_bits}-bit vectors")?;
        writeln!(
            f,
            "memory    {}",
            memory_bytes.map_or("unknown".to_owned(), |bytes| format!("{} available", HumanBytes(bytes)))
        )?;
        writeln!(
            f,
            "gpu       {}",
            nvidia_driver.as_deref().unwrap_or("no NVIDIA driver; --device auto uses the CPU")
        )?;
        let Some(model) = &self.model else { return Ok(()) };
        writeln!(f)?;
        writeln!(
            f,
            "weights   {} parameters, {} as stored",
            HumanCount(model.parameters),
            HumanBytes(model.weight_bytes)
        )?;
        writeln!(
            f,
            "kv cache  {} per token in bf16, {} in f32; sequences up to {} tokens",
            HumanBytes(model.kv_bytes_per_token_bf16),
            HumanBytes(model.kv_bytes_per_token_f32),
            HumanCount(model.max_length as u64)
        )?;
        let cache = model.cpu_tokens.map_or("does not fit into memory".to_owned(), |tokens| {
            format!("leaves memory for {} tokens of cache", HumanCount(tokens))
        });
        writeln!(f, "this cpu  {} in f32; {cache}", HumanBytes(model.cpu_bytes))?;
        for GpuPlan { kind, count, weight_bytes, cache_tokens, peak_tokens_per_second } in &model.gpus {
            let cache = cache_tokens.map_or("does not fit".to_owned(), |tokens| {
                let peak = HumanCount(*peak_tokens_per_second);
                format!("{} tokens of cache; peak {peak} tokens/s", HumanCount(tokens))
            });
            writeln!(f, "{count:>3} x {kind:<12} {} of weights each; {cache}", HumanBytes(*weight_bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_parsed() {
        assert_eq!(available_memory("MemTotal: 8 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available_memory("MemAvailable: much"), None);
        assert_eq!(available_memory(""), None);
    }
}
