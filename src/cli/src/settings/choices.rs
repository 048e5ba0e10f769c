//! The available engines, devices and data types.
//!
//! `surprisal serve --help` shows the doc comments of the variants, except those of [`DeviceChoice`].

use serde::{Deserialize, Serialize};

/// The inference engine.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineChoice {
    /// mistralrs for GGUF files, --isq, and models that the native engine does not support; otherwise native
    Auto,
    Native,
    /// Available only in builds with the feature mistralrs
    Mistralrs,
}

/// The device of the native engine: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum DeviceChoice {
    /// The first GPUs, one per rank, if available; otherwise the CPU.
    Auto,
    Cpu,
    /// The GPU with this index; with several ranks, consecutive GPUs from this index on.
    Cuda(usize),
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choice = match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Self::Cuda),
        };
        choice.ok_or_else(|| format!("device is {text:?}; it must be auto, cpu, cuda or cuda:N"))
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        match choice {
            DeviceChoice::Auto => "auto".to_owned(),
            DeviceChoice::Cpu => "cpu".to_owned(),
            DeviceChoice::Cuda(index) => format!("cuda:{index}"),
        }
    }
}

/// The data type of the weights in memory.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WeightDtype {
    /// On a CPU, bf16 if the checkpoint is bf16 (same results as f32), otherwise f32; on a GPU, bf16
    Auto,
    F32,
    Bf16,
    /// 8-bit integers with a scale per output channel (CPU only)
    Int8,
    /// e4m3 with a scale per output channel; activations are also in e4m3 (GPU only)
    Fp8,
}

/// The data type of keys and values in a GPU's KV cache.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvCacheDtype {
    /// bf16
    Auto,
    Bf16,
    /// e4m3 with a scale per head and token; twice as many tokens fit, but results are less accurate
    Fp8,
}

/// The data type of activations in matrix multiplications.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActivationDtype {
    F32,
    /// Rounded to bf16; less accurate, but about twice as fast on CPUs with bf16 instructions
    Bf16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_round_trip_through_text() {
        for (text, choice) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda:3", DeviceChoice::Cuda(3))]
        {
            assert_eq!((text.parse(), String::from(choice).as_str()), (Ok(choice), text));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["gpu", "cuda:", "cuda:-1", "cuda:x", ""] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert_eq!(error, format!("device is {text:?}; it must be auto, cpu, cuda or cuda:N"));
        }
    }
}
