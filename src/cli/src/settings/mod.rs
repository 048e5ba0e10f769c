//! The settings that `surprisal serve` runs with: a TOML file, overridden by the environment, overridden by flags.
//!
//! Start with [`Settings`]. `choices.rs` has the types of its fields, `file.rs` reads and prints it as TOML, `check.rs` rejects what
//! contradicts itself, `security.rs` reads the API keys and certificates it names, `engine.rs` turns it into the engine's own
//! configuration, and `environment.rs` warns of variables that nothing reads.

mod check;
mod choices;
mod engine;
mod environment;
mod file;
mod security;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use surprisal_engine::SchedulerConfig;
use surprisal_server::ServerConfig;

pub(crate) use self::check::GPU_REQUIRED;
pub(crate) use self::choices::{ActivationDtype, DeviceChoice, EngineChoice, KvCacheDtype, WeightDtype};
pub(crate) use self::environment::warn_of_unknown_variables;

/// All settings of a server. Each field has a default; a file may set any of them.
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
    pub(crate) dtype: WeightDtype,
    pub(crate) activations: ActivationDtype,
    /// On a GPU: how keys and values are kept.
    pub(crate) kv_cache_dtype: KvCacheDtype,
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
            dtype: WeightDtype::Auto,
            activations: ActivationDtype::F32,
            kv_cache_dtype: KvCacheDtype::Auto,
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
