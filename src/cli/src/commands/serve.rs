//! `surprisal serve`: loads a model, starts its engine, and serves HTTP requests until a signal stops it.

use std::path::PathBuf;

use crate::allocator;
use crate::error::Error;
use crate::listener::{ServerSockets, curl_command};
use crate::model::loaded::LoadedModel;
use crate::output::{print, print_status};
use crate::runtime::block_on_beside_engine;
use crate::security::Security;
use crate::settings::{ActivationDtype, DeviceChoice, EngineChoice, KvCacheDtype, Settings, WeightDtype};
use crate::signals::{Hangups, exit_on, stop_signals};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model to serve: `oracle` (built in), a folder in the Hugging Face layout, an id on the Hugging Face hub
    /// (owner/name), or a GGUF file [default: oracle]
    #[arg(long, env = "SURPRISAL_MODEL")]
    model: Option<String>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "SURPRISAL_HOST")]
    host: Option<String>,
    /// Port to listen on; 0 picks a free one [default: 8000]
    #[arg(long, env = "SURPRISAL_PORT")]
    port: Option<u16>,
    /// Port of a second listener, without TLS, for /health, /ready, /ping and /metrics; it responds even if clients use
    /// up the connection limit [default: none]
    #[arg(long, env = "SURPRISAL_ADMIN_PORT")]
    admin_port: Option<u16>,
    /// Inference engine [default: auto]
    #[arg(long, env = "SURPRISAL_ENGINE")]
    engine: Option<EngineChoice>,
    /// Device of the native engine: auto (GPUs if available, otherwise the CPU), cpu, cuda (the first GPU) or cuda:N
    /// (GPU N). With --tensor-parallel-size, consecutive GPUs are used, starting with that one [default: auto]
    #[arg(long, env = "SURPRISAL_DEVICE")]
    device: Option<DeviceChoice>,
    /// Quantization that mistralrs applies when it loads the model, such as q8_0 or q4k [default: none]
    #[arg(long, env = "SURPRISAL_ISQ")]
    isq: Option<String>,
    /// Data type of the weights in memory [default: auto]
    #[arg(long, env = "SURPRISAL_DTYPE")]
    dtype: Option<WeightDtype>,
    /// Data type of activations in matrix multiplications on a CPU [default: f32]
    #[arg(long, env = "SURPRISAL_ACTIVATIONS")]
    activations: Option<ActivationDtype>,
    /// Data type of the KV cache on a GPU [default: auto]
    #[arg(long, env = "SURPRISAL_KV_CACHE_DTYPE")]
    kv_cache_dtype: Option<KvCacheDtype>,
    /// Number of compute threads; 0 means one per core [default: 0]
    #[arg(long, env = "SURPRISAL_THREADS")]
    threads: Option<usize>,
    /// Number of ranks that share the model and the KV cache (tensor parallelism), each a GPU or a group of CPU threads
    /// [default: 1]
    #[arg(long, env = "SURPRISAL_TENSOR_PARALLEL_SIZE")]
    tensor_parallel_size: Option<usize>,
    /// Memory for the KV cache, in MiB [default: 1024 on a CPU, nearly all free memory on a GPU]
    #[arg(long, env = "SURPRISAL_CACHE_MIB")]
    cache_mib: Option<usize>,
    /// Maximum sequence length, in tokens, up to the model's limit [default: the model's limit]
    #[arg(long, env = "SURPRISAL_MAX_LENGTH")]
    max_length: Option<usize>,
    /// Maximum number of tokens per forward pass [default: 512]
    #[arg(long, env = "SURPRISAL_TOKEN_BUDGET")]
    token_budget: Option<usize>,
    /// TOML file with these settings and the HTTP server's limits; environment variables override it, and flags
    /// override both
    #[arg(long, env = "SURPRISAL_CONFIG")]
    config: Option<PathBuf>,
    /// File of API keys, one per line; lines that begin with # are comments. With this file or SURPRISAL_API_KEYS,
    /// clients must send a key. SIGHUP reloads the file and the certificate
    #[arg(long, env = "SURPRISAL_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// Certificate chain, in PEM; requires --tls-key, and makes the server speak HTTPS only
    #[arg(long, env = "SURPRISAL_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, env = "SURPRISAL_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Print the effective settings as TOML, and exit
    #[arg(long)]
    print_config: bool,
}

impl Args {
    /// Returns the effective settings: flags override environment variables, which override the file, which overrides
    /// defaults.
    fn settings(&self) -> Result<Settings, Error> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        let settings = Settings {
            model: self.model.clone().unwrap_or(file.model),
            host: self.host.clone().unwrap_or(file.host),
            port: self.port.unwrap_or(file.port),
            admin_port: self.admin_port.or(file.admin_port),
            engine: self.engine.unwrap_or(file.engine),
            device: self.device.unwrap_or(file.device),
            isq: self.isq.clone().or(file.isq),
            dtype: self.dtype.unwrap_or(file.dtype),
            activations: self.activations.unwrap_or(file.activations),
            kv_cache_dtype: self.kv_cache_dtype.unwrap_or(file.kv_cache_dtype),
            threads: self.threads.unwrap_or(file.threads),
            tensor_parallel_size: self.tensor_parallel_size.unwrap_or(file.tensor_parallel_size),
            cache_mib: self.cache_mib.or(file.cache_mib),
            max_length: self.max_length.or(file.max_length),
            token_budget: self.token_budget.unwrap_or(file.token_budget),
            api_key_file: self.api_key_file.clone().or(file.api_key_file),
            tls_cert: self.tls_cert.clone().or(file.tls_cert),
            tls_key: self.tls_key.clone().or(file.tls_key),
            ..file
        };
        settings.check()?;
        Ok(settings)
    }
}

/// Loads the model and serves requests until a signal stops the server.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let settings = args.settings()?;
    if args.print_config {
        return print(settings.to_toml()?);
    }
    let security = Security::read(&settings)?;
    block_on_beside_engine(async {
        security.clone().reload_on(Hangups::new(), settings.clone());
        let sockets = ServerSockets::bind(&settings, &security).await?;
        // A container's first process ignores signals by default. While the model loads, there are no requests to
        // finish.
        let exit_while_loading = exit_on(stop_signals(1), "stopped while loading the model");
        print_status(format_args!("loading {}", settings.model));
        let model = LoadedModel::load(&settings).await?;
        let info = model.scorer.describe().clone();
        // A script that reads the next line may send a signal at once, so the handlers are installed first.
        let stop = stop_signals(1);
        exit_on(stop_signals(2), "stopped at once; requests in flight were dropped");
        exit_while_loading.abort();
        allocator::release_freed_memory();
        let url = &sockets.url;
        if let Some(url) = &sockets.admin_url {
            print_status(format_args!("health and metrics on {url}"));
        }
        print_status(format_args!(
            "serving {} ({}) on {url}, at most {} tokens per sequence",
            info.id, info.device, info.max_length
        ));
        print_status(format_args!("try: {}", curl_command(url, model.example_context, &model.example_target)));
        let app = with_span_export(model.into_app(settings.server).with_api_keys(security.keys))?;
        sockets.listeners.serve(app, stop).await?;
        print_status("stopped");
        Ok(())
    })
}

/// Exports spans to the collector that the environment names, if any.
#[cfg(feature = "otlp")]
fn with_span_export(app: surprisal_server::App) -> Result<surprisal_server::App, Error> {
    Ok(match surprisal_server::SpanExport::from_env()? {
        Some(spans) => app.with_span_export(spans),
        None => app,
    })
}

/// Warns if the environment names a collector.
#[cfg(not(feature = "otlp"))]
fn with_span_export(app: surprisal_server::App) -> Result<surprisal_server::App, Error> {
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!(
            variable = "OTEL_EXPORTER_OTLP_ENDPOINT",
            "ignoring the environment variable; this program was built without the feature otlp"
        );
    }
    Ok(app)
}
