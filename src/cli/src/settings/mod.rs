//! The settings of `surprisal serve`. Flags override environment variables, which override a TOML file.
//!
//! Start with [`Settings`]. `choices.rs` has the types of its fields, and `file.rs` reads and prints it as TOML.
//! `check.rs` rejects contradictions, `security.rs` reads the API keys and certificates, `engine.rs` converts settings
//! to the engine's configuration, and `environment.rs` warns about unknown variables.

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
    /// Model to serve: `oracle`, a folder, an id on the Hugging Face hub, or a GGUF file.
    pub(crate) model: String,
    pub(crate) host: String,
    /// Port to listen on; 0 picks a free one.
    pub(crate) port: u16,
    /// Port of a second listener, for health checks and metrics; `None` for none.
    pub(crate) admin_port: Option<u16>,
    pub(crate) engine: EngineChoice,
    /// Device of the native engine: `auto`, `cpu`, `cuda` or `cuda:N`.
    pub(crate) device: DeviceChoice,
    /// In-situ quantization by mistralrs, such as `q8_0`; `None` for none.
    pub(crate) isq: Option<String>,
    /// Data type of the weights in the native engine.
    pub(crate) dtype: WeightDtype,
    /// Data type of activations in matrix multiplications in the native engine.
    pub(crate) activations: ActivationDtype,
    /// Data type of keys and values on a GPU.
    pub(crate) kv_cache_dtype: KvCacheDtype,
    /// Number of compute threads; 0 means one per core.
    pub(crate) threads: usize,
    /// Number of ranks that share the model and the KV cache, each a GPU or a group of CPU threads.
    pub(crate) tensor_parallel_size: usize,
    /// Memory for the KV cache, in MiB; `None` means 1024 on a CPU, and nearly all free memory on a GPU.
    pub(crate) cache_mib: Option<usize>,
    /// Maximum sequence length, in tokens; `None` means the model's maximum.
    pub(crate) max_length: Option<usize>,
    /// Maximum number of tokens per forward pass.
    pub(crate) token_budget: usize,
    /// Maximum number of queries that run at the same time.
    pub(crate) max_running: usize,
    /// File with one API key per line.
    pub(crate) api_key_file: Option<PathBuf>,
    /// Certificate chain, in PEM; requires `tls_key`, and makes the server speak HTTPS only.
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM.
    pub(crate) tls_key: Option<PathBuf>,
    /// Limits of the HTTP server.
    pub(crate) server: ServerConfig,
}

impl Default for Settings {
    fn default() -> Self {
        let scheduler = SchedulerConfig::default();
        Self {
            model: "oracle".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 8000,
            admin_port: None,
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
