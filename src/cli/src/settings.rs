//! What `surprisal serve` runs with: a TOML file, overridden by the environment, overridden by flags.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use surprisal_engine::{Activations, CpuConfig, SchedulerConfig, WeightType};
use surprisal_server::{ApiKeys, ServerConfig, Tls};

use crate::error::Error;

/// The KV cache on a CPU if none is said, in MiB.
const CPU_CACHE_MIB: usize = 1024;

/// What is read of the environment beside the flags' own variables.
const VARIABLES: [&str; 2] = ["SURPRISAL_API_KEYS", "SURPRISAL_LOG"];

/// Which engine computes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineChoice {
    /// mistralrs for GGUF files, --isq and what the native engine does not know; else the native one
    Auto,
    Native,
    /// For programs that were built with it
    Mistralrs,
}

/// Where the native engine computes: `auto`, `cpu`, `cuda` or `cuda:N`.
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
        let index = |index: &str| index.parse().ok().map(Self::Cuda);
        let choice = match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(index),
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

/// What is said where a CPU would have to do what it does not.
pub(crate) const NEEDS_GPU: &str =
    "dtype fp8 and kv_cache_dtype need a GPU: without one leave them, or set dtype to bf16 or int8";

/// How weights are stored.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dtype {
    /// bf16 where the checkpoint is, with the bits of f32; f32 otherwise
    Auto,
    F32,
    Bf16,
    /// 8 bits and a scale for each output, on a CPU
    Int8,
    /// e4m3 and a scale for each output, and activations in it too, on a GPU
    Fp8,
}

/// How a GPU keeps keys and values.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CacheType {
    /// bf16 on a GPU
    Auto,
    Bf16,
    /// e4m3 and a scale for each head of each token: twice the tokens, less exact
    Fp8,
}

/// How products read activations.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActivationType {
    F32,
    /// Rounded: less exact, and about twice as fast where the machine multiplies bf16
    Bf16,
}

/// Everything a server can be told. Each field has a default; a file may set any of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// `oracle`, a folder, an id on the Hugging Face hub, or a GGUF file.
    pub(crate) model: String,
    pub(crate) host: String,
    /// 0 means any free port.
    pub(crate) port: u16,
    pub(crate) engine: EngineChoice,
    /// For the native engine: `auto`, `cpu`, `cuda` or `cuda:N`.
    pub(crate) device: DeviceChoice,
    /// mistralrs' in-situ quantisation.
    pub(crate) isq: Option<String>,
    /// For the native engine: how weights are stored and products read activations.
    pub(crate) dtype: Dtype,
    pub(crate) activations: ActivationType,
    /// On a GPU: how keys and values are kept.
    pub(crate) kv_cache_dtype: CacheType,
    /// Compute threads; 0 means one a core.
    pub(crate) threads: usize,
    /// Ranks that the model is divided among, on as many GPUs or on the CPU's threads; each has its part of the cache.
    pub(crate) tensor_parallel_size: usize,
    /// Memory for the KV cache, in MiB; if none is said, 1024 on a CPU, and all that is left on a GPU.
    pub(crate) cache_mib: Option<usize>,
    /// The longest sequence, in tokens, if it is to be shorter than the model's own.
    pub(crate) max_length: Option<usize>,
    /// Tokens a forward pass computes at most.
    pub(crate) token_budget: usize,
    /// Queries computed at a time at most.
    pub(crate) max_running: usize,
    /// One API key a line.
    pub(crate) api_key_file: Option<PathBuf>,
    /// A chain of certificates and its private key, in PEM; with both, HTTPS alone is spoken.
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    /// Bounds of the HTTP server.
    pub(crate) server: ServerConfig,
}

impl Default for Settings {
    fn default() -> Self {
        let scheduler = SchedulerConfig::default();
        Self {
            model: "oracle".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 8000,
            engine: EngineChoice::Auto,
            device: DeviceChoice::Auto,
            isq: None,
            dtype: Dtype::Auto,
            activations: ActivationType::F32,
            kv_cache_dtype: CacheType::Auto,
            threads: 0,
            tensor_parallel_size: 1,
            cache_mib: None,
            max_length: None,
            token_budget: scheduler.token_budget,
            max_running: scheduler.max_running,
            api_key_file: None,
            tls_cert: None,
            tls_key: None,
            server: ServerConfig::default(),
        }
    }
}

impl Settings {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::Config { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        toml::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// A file that reads as these settings.
    pub(crate) fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error::Usage(format!("the settings cannot be written as TOML: {error}")))
    }

    /// The keys of the file and of the environment together. Either, where it is given, must have one: a server that was
    /// to be closed is not left open.
    pub(crate) fn api_keys(&self, environment: Option<OsString>) -> Result<ApiKeys, Error> {
        let mut keys = String::new();
        if let Some(path) = &self.api_key_file {
            let failed = |reason: String| Error::Config { path: path.clone(), reason };
            let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            if ApiKeys::parse(&text).is_empty() {
                return Err(failed("it has no API key".to_owned()));
            }
            check_keys(&text).map_err(failed)?;
            keys.push_str(&text);
        }
        if let Some(text) = environment {
            let text = text.into_string().unwrap_or_default();
            if ApiKeys::parse(&text).is_empty() {
                return Err(Error::Usage("SURPRISAL_API_KEYS is set and has no API key in UTF-8".to_owned()));
            }
            check_keys(&text).map_err(|reason| Error::Usage(format!("SURPRISAL_API_KEYS: {reason}")))?;
            keys.push('\n');
            keys.push_str(&text);
        }
        Ok(ApiKeys::parse(&keys))
    }

    /// The certificate to serve with, if there is one.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, Error> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificates), Some(key)) => Ok(Some(Tls::from_pem_files(certificates, key)?)),
            _ => Ok(None),
        }
    }

    /// Refuses what would leave the engine without work or memory, and what the native engine would not heed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.engine == EngineChoice::Native && self.isq.is_some() {
            return Err(Error::Usage(
                "isq is set, but only mistralrs quantises so; the native engine has dtype".to_owned(),
            ));
        }
        self.check_for_gpu()?;
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(Error::Usage("tls_cert and tls_key belong together: give both, or neither".to_owned()));
        }
        if let Some(origin) = self.server.wrong_origin() {
            return Err(Error::Usage(format!(
                "server.cors_origins has {origin:?}; an origin is a scheme and a host, as in https://example.org, or *"
            )));
        }
        for (name, value) in [
            ("cache_mib", self.cache_mib.unwrap_or(1)),
            ("tensor_parallel_size", self.tensor_parallel_size),
            ("token_budget", self.token_budget),
            ("max_running", self.max_running),
            ("server.max_request_seconds", usize::try_from(self.server.max_request_seconds).unwrap_or(usize::MAX)),
            ("max_length", self.max_length.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::Usage(format!("{name} is 0; it must be at least 1")));
            }
        }
        Ok(())
    }

    /// Refuses what a GPU would not heed.
    fn check_for_gpu(&self) -> Result<(), Error> {
        if self.device == DeviceChoice::Cpu && self.needs_gpu() {
            return Err(Error::Usage(NEEDS_GPU.to_owned()));
        }
        if !matches!(self.device, DeviceChoice::Cuda(_)) || self.is_for_gpu() {
            return Ok(());
        }
        Err(Error::Usage(
            "dtype and activations are set, but a GPU computes in bf16 or FP8: leave them, or set dtype to bf16 or fp8"
                .to_owned(),
        ))
    }

    /// Refuses a longest sequence beyond the model's own, in tokens.
    pub(crate) fn check_max_length(&self, longest: usize) -> Result<(), Error> {
        match self.max_length {
            Some(asked) if asked > longest => Err(Error::Usage(format!(
                "max_length is {asked}, but this model's sequences have at most {longest} tokens; lower it, or leave it"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the numbers asked for are those of a GPU.
    pub(crate) fn is_for_gpu(&self) -> bool {
        matches!(self.dtype, Dtype::Auto | Dtype::Bf16 | Dtype::Fp8) && self.activations == ActivationType::F32
    }

    /// Whether they are those of a GPU alone.
    pub(crate) fn needs_gpu(&self) -> bool {
        self.dtype == Dtype::Fp8 || self.kv_cache_dtype != CacheType::Auto
    }

    /// Refuses what mistralrs would not heed.
    pub(crate) fn check_for_mistralrs(&self) -> Result<(), Error> {
        let default = Self::default();
        let native = |settings: &Self| {
            (settings.dtype, settings.activations, settings.kv_cache_dtype, settings.tensor_parallel_size)
        };
        if native(self) == native(&default) {
            return Ok(());
        }
        Err(Error::Usage(
            "dtype, activations, kv_cache_dtype and tensor_parallel_size are for the native engine, and mistralrs is to \
             serve this model; it has isq"
                .to_owned(),
        ))
    }

    pub(crate) fn scheduler(&self) -> SchedulerConfig {
        SchedulerConfig { token_budget: self.token_budget, max_running: self.max_running }
    }

    pub(crate) fn cpu(&self) -> CpuConfig {
        let cache_bytes = self.cache_mib.unwrap_or(CPU_CACHE_MIB).saturating_mul(1 << 20);
        let weights = match self.dtype {
            // FP8 is refused before a CPU is asked.
            Dtype::Auto | Dtype::Fp8 => None,
            Dtype::F32 => Some(WeightType::F32),
            Dtype::Bf16 => Some(WeightType::Bf16),
            Dtype::Int8 => Some(WeightType::Int8),
        };
        let activations = match self.activations {
            ActivationType::F32 => Activations::F32,
            ActivationType::Bf16 => Activations::Bf16,
        };
        CpuConfig {
            weights,
            activations,
            cache_bytes,
            threads: self.threads,
            max_length: self.max_length,
            ..CpuConfig::default()
        }
    }
}

/// Refuses lines that look like a key and a comment, and never repeats them.
fn check_keys(lines: &str) -> Result<(), String> {
    match ApiKeys::wrong_line(lines) {
        Some(line) => Err(format!(
            "line {line} has whitespace within its API key; keys have none, and a comment is a line that begins with #"
        )),
        None => Ok(()),
    }
}

/// Warns of the environment's variables that look like ours and are not.
pub(crate) fn warn_of_unknown_variables(command: &clap::Command) {
    let unknown = unknown_variables(command, std::env::vars_os().map(|(name, _)| name));
    if !unknown.is_empty() {
        tracing::warn!(
            "nothing reads {}: `surprisal serve --help` names the variables there are; other settings are the file's alone",
            unknown.join(", ")
        );
    }
}

/// The names that begin as ours do, but that no command reads, sorted.
fn unknown_variables(command: &clap::Command, names: impl Iterator<Item = OsString>) -> Vec<String> {
    let flags = command.get_subcommands().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_env);
    let known: HashSet<&OsStr> = flags.chain(VARIABLES.map(OsStr::new)).collect();
    let unknown = names.filter(|name| !known.contains(name.as_os_str())).filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<String> = unknown.filter(|name| name.starts_with("SURPRISAL_")).collect();
    unknown.sort_unstable();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_loads() {
        let files = std::fs::read_dir("../../configs").unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|path| path.is_file()).collect();
        assert!(!files.is_empty());
        for file in files {
            Settings::read(&file).unwrap().check().unwrap();
        }
    }

    #[test]
    fn every_setting_is_in_the_book() {
        let all = Settings {
            isq: Some("q8_0".to_owned()),
            cache_mib: Some(1),
            max_length: Some(1),
            api_key_file: Some("keys".into()),
            tls_cert: Some("cert.pem".into()),
            tls_key: Some("key.pem".into()),
            ..Settings::default()
        };
        let table: toml::Table = all.to_toml().unwrap().parse().unwrap();
        let server = table["server"].as_table().unwrap().keys().map(|name| format!("server.{name}"));
        let names = table.keys().filter(|name| *name != "server").cloned().chain(server);
        let book = std::fs::read_to_string("../../docs/src/operations.md").unwrap();
        for name in names.map(|name| format!("`{name}`")) {
            assert!(book.lines().any(|line| line.starts_with('|') && line.contains(&name)), "{name}");
        }
    }

    #[test]
    fn settings_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("written.toml");
        let settings =
            Settings { port: 7, api_key_file: Some("keys".into()), max_length: Some(9), ..Settings::default() };
        std::fs::write(&path, settings.to_toml().unwrap()).unwrap();
        assert_eq!(Settings::read(&path).unwrap(), settings);
    }

    #[test]
    fn keys_come_from_file_and_environment_and_are_never_none_by_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let settings = Settings { api_key_file: Some(path.clone()), ..Settings::default() };
        assert!(settings.api_keys(None).is_err());
        std::fs::write(&path, "# none yet\n").unwrap();
        assert!(settings.api_keys(None).unwrap_err().to_string().contains("no API key"));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(settings.api_keys(Some("two\nthree".into())).unwrap().len(), 3);
        assert!(settings.api_keys(Some(" ".into())).is_err());
        let error = settings.api_keys(Some("two\nthree four".into())).unwrap_err().to_string();
        assert!(error.starts_with("SURPRISAL_API_KEYS: line 2 has whitespace") && !error.contains("four"), "{error}");
        std::fs::write(&path, "# people\none\nsk-abc  # alice\n").unwrap();
        let error = settings.api_keys(None).unwrap_err().to_string();
        assert!(error.contains("keys: line 3 has whitespace") && !error.contains("sk-abc"), "{error}");
        assert!(Settings::default().api_keys(None).unwrap().is_empty());
    }

    #[test]
    fn devices_are_read_and_a_gpu_refuses_other_numbers() {
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
        let settings = Settings { device: DeviceChoice::Cuda(0), ..Settings::default() };
        assert!(settings.check().is_ok());
        let error = Settings { dtype: Dtype::Int8, ..settings }.check().unwrap_err();
        assert!(error.to_string().contains("a GPU computes in bf16"), "{error}");
        let on_gpu = Settings { dtype: Dtype::Fp8, kv_cache_dtype: CacheType::Fp8, ..Settings::default() };
        assert!(on_gpu.is_for_gpu() && on_gpu.needs_gpu() && on_gpu.check().is_ok());
        let error = Settings { device: DeviceChoice::Cpu, ..on_gpu }.check().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (NEEDS_GPU, 2));
    }

    #[test]
    fn a_longest_sequence_beyond_the_model_s_is_refused() {
        let settings = Settings { max_length: Some(4096), ..Settings::default() };
        assert!(settings.check_max_length(4096).is_ok() && Settings::default().check_max_length(1).is_ok());
        let error = settings.check_max_length(4095).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("max_length is 4096, but this model's sequences have at most 4095 tokens"), "{said}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn unknown_and_empty_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.toml");
        std::fs::write(&path, "modle = \"oracle\"").unwrap();
        assert!(Settings::read(&path).unwrap_err().to_string().contains("modle"));
        assert!(Settings::read(&dir.path().join("none.toml")).is_err());
        let error = Settings { cache_mib: Some(0), ..Settings::default() }.check().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("cache_mib is 0; it must be at least 1", 2));
    }
}
