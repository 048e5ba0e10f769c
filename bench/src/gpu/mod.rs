//! Checks and benchmarks of a GPU, which also run on any other accelerator, such as the shim.
//!
//! Start with [`conformance`], which checks that a device fulfills the contract of an accelerator. [`products`] and
//! [`attention`] measure the device's speed.

pub mod attention;
pub mod conformance;
pub mod products;

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use surprisal_engine::BackendError;
use surprisal_engine::cuda::{Accelerator, DeviceRegion};

/// A check of the device, and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The checked operation.
    pub name: String,
    /// The failure; `None` if the check passed.
    pub failure: Option<String>,
}

/// An operation's time.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The timed operation.
    pub name: String,
    /// Mean time in milliseconds of several runs, queued together.
    pub milliseconds: f64,
    /// 10^12 floating-point operations per second.
    pub teraflops: f64,
}

/// The sizes of a model to time.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Columns of the residual stream.
    pub hidden: usize,
    /// Columns of the MLP.
    pub mlp: usize,
    /// Query heads and KV heads, each of size 128.
    pub heads: (u32, u32),
    /// Decoder layers.
    pub layers: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
}

impl Sizes {
    /// Llama-3.1-8B.
    pub const LLAMA_8B: Self = Self { hidden: 4096, mlp: 14_336, heads: (32, 8), layers: 32, vocabulary: 128_256 };

    /// Small sizes for the shim.
    pub const TINY: Self = Self { hidden: 64, mlp: 96, heads: (2, 1), layers: 2, vocabulary: 504 };

    /// Returns the config.json of a Llama of these sizes.
    #[must_use]
    pub fn config(&self) -> String {
        let Self { hidden, mlp, heads: (heads, kv_heads), layers, vocabulary } = self;
        json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": mlp,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": 128,
            "num_hidden_layers": layers, "vocab_size": vocabulary, "rope_theta": 500000.0,
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        })
        .to_string()
    }
}

/// Returns random bf16 values between -1 and 1.
fn random(count: usize, seed: u64) -> Vec<u16> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut value = || ((rng.random_range(-1.0f32..1.0)).to_bits() >> 16) as u16;
    // A large matrix repeats its beginning. The period is prime, so that rows differ.
    let beginning: Vec<u16> = (0..count.min(1_000_003)).map(|_| value()).collect();
    beginning.iter().copied().cycle().take(count).collect()
}

fn bytes(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Returns the value of a bf16.
fn bf16_value(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// Allocates a region and writes bf16 values to it.
fn upload<A: Accelerator>(device: &mut A, values: &[u16]) -> Result<DeviceRegion, BackendError> {
    let region = device.allocate(values.len() * 2)?;
    device.write(region, &bytes(values))?;
    Ok(region)
}

/// Returns the mean time of a run in milliseconds, over `repeats` runs that are queued together after a warm-up run.
fn time<A: Accelerator>(
    device: &mut A,
    probe: DeviceRegion,
    repeats: u32,
    mut run: impl FnMut(&mut A) -> Result<(), BackendError>,
) -> Result<f64, BackendError> {
    let mut word = [0; 2];
    run(device)?;
    device.read(probe, &mut word)?;
    let start = Instant::now();
    (0..repeats).try_for_each(|_| run(device))?;
    device.read(probe, &mut word)?;
    Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(repeats))
}
