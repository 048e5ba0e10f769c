//! The choices among engines, devices and number types.
//!
//! The doc comments of the variants are shown by `surprisal serve --help`.

use serde::{Deserialize, Serialize};

/// The engine that computes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineChoice {
    /// mistralrs for GGUF files, --isq and what the native engine does not know; else the native one
    Auto,
    Native,
    /// For programs that were built with it
    Mistralrs,
}

/// The device of the native engine: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum DeviceChoice {
    /// The first GPUs if there are as many as ranks, else the CPU.
    Auto,
    Cpu,
    /// The GPU of this index, or as many as there are ranks, from it on.
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
        choice.ok_or_else(|| format!("the device is {text:?}, but must be auto, cpu, cuda or cuda:N"))
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

/// The type that weights are stored in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WeightDtype {
    /// bf16 where the checkpoint is, with the bits of f32; f32 otherwise
    Auto,
    F32,
    Bf16,
    /// 8 bits and a scale for each output, on a CPU
    Int8,
    /// e4m3 and a scale for each output, and activations in it too, on a GPU
    Fp8,
}

/// The type that a GPU stores keys and values in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvCacheDtype {
    /// bf16 on a GPU
    Auto,
    Bf16,
    /// e4m3 and a scale for each head of each token: twice the tokens, less exact
    Fp8,
}

/// The type that matrix products read activations in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActivationDtype {
    F32,
    /// Rounded: less exact, and about twice as fast where the machine multiplies bf16
    Bf16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written() {
        for (text, choice) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda:3", DeviceChoice::Cuda(3))]
        {
            assert_eq!((text.parse(), String::from(choice).as_str()), (Ok(choice), text));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["gpu", "cuda:", "cuda:-1", "cuda:x", ""] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert_eq!(error, format!("the device is {text:?}, but must be auto, cpu, cuda or cuda:N"));
        }
    }
}
