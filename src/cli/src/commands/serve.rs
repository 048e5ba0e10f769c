//! `surprisal serve`: loads a model, starts its engine and answers HTTP requests until it is stopped.

use std::path::PathBuf;

use crate::error::Error;
use crate::listener::{base_url, bind, curl_command};
use crate::model::loaded::LoadedModel;
use crate::runtime::block_on_beside_engine;
use crate::settings::{ActivationDtype, DeviceChoice, EngineChoice, KvCacheDtype, Settings, WeightDtype};
use crate::signals::{exit_on, stop_signals};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `oracle` (built in), a folder in the Hugging Face layout, an id on its hub (owner/name), or a GGUF file [default: oracle]
    #[arg(long, env = "SURPRISAL_MODEL")]
    model: Option<String>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "SURPRISAL_HOST")]
    host: Option<String>,
    /// Port to listen on; 0 takes any free one [default: 8000]
    #[arg(long, env = "SURPRISAL_PORT")]
    port: Option<u16>,
    /// Which engine computes [default: auto]
    #[arg(long, env = "SURPRISAL_ENGINE")]
    engine: Option<EngineChoice>,
    /// Where the native engine computes: auto (the first GPU, if there is one), cpu, cuda or cuda:N; with ranks, on as many GPUs from
    /// there on [default: auto]
    #[arg(long, env = "SURPRISAL_DEVICE")]
    device: Option<DeviceChoice>,
    /// Quantise on load, as mistralrs names it: q8_0, q4k, ... [default: not at all]
    #[arg(long, env = "SURPRISAL_ISQ")]
    isq: Option<String>,
    /// How weights are stored [default: auto]
    #[arg(long, env = "SURPRISAL_DTYPE")]
    dtype: Option<WeightDtype>,
    /// How products read activations [default: f32]
    #[arg(long, env = "SURPRISAL_ACTIVATIONS")]
    activations: Option<ActivationDtype>,
    /// How a GPU keeps keys and values [default: auto]
    #[arg(long, env = "SURPRISAL_KV_CACHE_DTYPE")]
    kv_cache_dtype: Option<KvCacheDtype>,
    /// Compute threads; 0 means one a core [default: 0]
    #[arg(long, env = "SURPRISAL_THREADS")]
    threads: Option<usize>,
    /// Ranks that the model is divided among: GPUs, or parts of the CPU's threads; each has its part of the cache [default: 1]
    #[arg(long, env = "SURPRISAL_TENSOR_PARALLEL_SIZE")]
    tensor_parallel_size: Option<usize>,
    /// Memory for the KV cache, in MiB [default: 1024; on a GPU all that is left]
    #[arg(long, env = "SURPRISAL_CACHE_MIB")]
    cache_mib: Option<usize>,
    /// The longest sequence to accept, in tokens; at most the model's own [default: the model's own]
    #[arg(long, env = "SURPRISAL_MAX_LENGTH")]
    max_length: Option<usize>,
    /// Tokens that one forward pass computes at most [default: 512]
    #[arg(long, env = "SURPRISAL_TOKEN_BUDGET")]
    token_budget: Option<usize>,
    /// A TOML file with these settings and the server's; environment variables override it, and flags override both
    #[arg(long, env = "SURPRISAL_CONFIG")]
    config: Option<PathBuf>,
    /// A file of API keys, one a line; a line that begins with # is a comment. With it (or SURPRISAL_API_KEYS) only those who send
    /// one are served
    #[arg(long, env = "SURPRISAL_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// A chain of certificates in PEM; with it and --tls-key, HTTPS alone is spoken
    #[arg(long, env = "SURPRISAL_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, env = "SURPRISAL_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Print the settings that file, environment and flags come to, as a TOML file, and stop
    #[arg(long)]
    print_config: bool,
}

impl Args {
    /// Returns the settings: the flags and their environment variables, over those of the file, over the defaults.
    fn settings(&self) -> Result<Settings, Error> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        let settings = Settings {
            model: self.model.clone().unwrap_or(file.model),
            host: self.host.clone().unwrap_or(file.host),
            port: self.port.unwrap_or(file.port),
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

/// Loads the model and answers requests until a signal stops the server.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let settings = args.settings()?;
    if args.print_config {
        print!("{}", settings.to_toml()?);
        return Ok(());
    }
    let keys = settings.api_keys(std::env::var_os("SURPRISAL_API_KEYS"))?;
    let tls = settings.tls()?;
    block_on_beside_engine(async {
        let listener = bind(&settings.host, settings.port).await?;
        let url = base_url(if tls.is_some() { "https" } else { "http" }, &listener)?;
        // The first process of a container ignores signals by default, and there is nothing to finish yet.
        let exit_while_loading = exit_on(stop_signals(1), "stopped before there was anything to answer");
        eprintln!("loading {}", settings.model);
        let model = LoadedModel::load(&settings).await?;
        let info = model.scorer.describe().clone();
        // From the next line on, its reader may stop the server.
        let stop = stop_signals(1);
        exit_on(stop_signals(2), "stopped at once; what was being answered is cut off");
        exit_while_loading.abort();
        eprintln!("serving {} ({}) on {url}, at most {} tokens a sequence", info.id, info.device, info.max_length);
        eprintln!("try: {}", curl_command(&url, model.example_context, &model.example_target));
        let app = with_span_export(model.into_app(settings.server).with_api_keys(keys))?;
        match tls {
            Some(tls) => surprisal_server::serve_tls(listener, tls, app, stop).await?,
            None => surprisal_server::serve(listener, app, stop).await?,
        }
        eprintln!("stopped");
        Ok(())
    })
}

/// Exports spans to the collector that the environment names.
#[cfg(feature = "otlp")]
fn with_span_export(app: surprisal_server::App) -> Result<surprisal_server::App, Error> {
    Ok(match surprisal_server::SpanExport::from_env()? {
        Some(spans) => app.with_span_export(spans),
        None => app,
    })
}

/// Warns of a collector that the environment names.
#[cfg(not(feature = "otlp"))]
fn with_span_export(app: surprisal_server::App) -> Result<surprisal_server::App, Error> {
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!("no spans go to OTEL_EXPORTER_OTLP_ENDPOINT: this program was built without the feature otlp");
    }
    Ok(app)
}
