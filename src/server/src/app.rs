//! `App`: the state that all routes share.

use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use surprisal_engine::{ModelCard, Scorer};
use tokio::time::Instant;

use crate::codec::TextCodec;
use crate::limits::admission::Admission;
use crate::limits::config::ServerConfig;
use crate::limits::connections::Connections;
use crate::limits::drain::Drain;
use crate::limits::turns::{JobSize, Turns};
use crate::problem::{self, Failure};
use crate::telemetry::Telemetry;
#[cfg(feature = "otlp")]
use crate::telemetry::export::SpanExport;
use crate::telemetry::metrics::Metrics;
use crate::transport::auth::KeyRing;
use crate::transport::outline::DECODING_BYTES;

/// The maximum number of bytes to process on the reactor: on a busy machine, waking another thread takes longer than
/// processing so few bytes.
const MAX_INLINE_BYTES: usize = 4096;

/// The approximate size of a token with its details in a response, or of an alternative, in bytes.
pub(crate) const TOKEN_BYTES: usize = 48;

/// The assumed maximum length of a token's text, in bytes, if the tokenizer has no bound.
const UNBOUNDED_TOKEN_BYTES: usize = 256;

/// A served model and the server's state. Clones share the state.
#[derive(Clone)]
pub struct App {
    pub(crate) scorer: Arc<dyn Scorer>,
    pub(crate) codec: Arc<dyn TextCodec>,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) keys: KeyRing,
    pub(crate) admission: Admission,
    pub(crate) connections: Connections,
    pub(crate) turns: Turns,
    pub(crate) text_limits: TextLimits,
    pub(crate) telemetry: Telemetry,
    pub(crate) drain: Drain,
    /// The OpenAPI document, once it has been requested.
    pub(crate) openapi: Arc<OnceLock<Bytes>>,
    /// Number of files that connections leave for reloading the model.
    pub(crate) reserved_files: usize,
    /// Unix time at which the server started, in seconds.
    pub(crate) started: u64,
}

/// The limits on one text, and on one list of token ids to decode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextLimits {
    /// Maximum length of a text that may fit the model's maximum length, in bytes.
    pub(crate) context_bytes: usize,
    /// Maximum length of a text to tokenize, in bytes; `max_working_bytes` limits it.
    pub(crate) tokenizing_bytes: usize,
    /// Maximum number of token ids to decode; `max_working_bytes` limits it.
    pub(crate) decoding_tokens: usize,
}

impl TextLimits {
    fn new(max_length: usize, codec: &dyn TextCodec, memory: usize) -> Self {
        Self {
            context_bytes: max_length.saturating_mul(codec.max_token_bytes().unwrap_or(UNBOUNDED_TOKEN_BYTES)),
            tokenizing_bytes: memory / codec.encoding_bytes().max(1),
            decoding_tokens: memory / DECODING_BYTES,
        }
    }
}

impl App {
    /// Creates an app that serves `scorer`, tokenizes texts with `codec` and enforces the limits of `config`.
    pub fn new(scorer: Arc<dyn Scorer>, codec: Arc<dyn TextCodec>, config: ServerConfig) -> Self {
        let admission = Admission::new(&config);
        let connections = Connections::default();
        let metrics =
            Metrics::new(&scorer, &admission, &connections).expect("metric names are constants, valid and distinct");
        let memory = config.working_bytes_limit();
        let text_limits = TextLimits::new(scorer.describe().max_length, codec.as_ref(), memory);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            scorer,
            codec,
            config: Arc::new(config),
            keys: KeyRing::default(),
            admission,
            connections,
            turns: Turns::new(available_parallelism().map_or(1, NonZero::get), memory),
            text_limits,
            telemetry: Telemetry::new(metrics),
            drain: Drain::default(),
            openapi: Arc::default(),
            reserved_files: 0,
            started,
        }
    }

    /// Accepts work only from clients that send one of these keys. The routes that only report, such as `/v1/models`,
    /// `/health` and `/metrics`, stay open.
    #[must_use]
    pub fn with_api_keys(mut self, keys: impl Into<KeyRing>) -> Self {
        self.keys = keys.into();
        self
    }

    /// Lowers the limit on connections so that the process can always open this many files, to reload the model.
    #[must_use]
    pub fn with_reserved_files(mut self, files: usize) -> Self {
        self.reserved_files = files;
        self
    }

    /// Exports each request's span to a collector.
    #[cfg(feature = "otlp")]
    #[must_use]
    pub fn with_span_export(mut self, spans: SpanExport) -> Self {
        self.telemetry.spans = Some(Arc::new(spans));
        self
    }

    pub(crate) fn model(&self) -> &ModelCard {
        self.scorer.describe()
    }

    /// Rejects a request for a model other than the served one. As in vLLM, an empty name means the served model.
    pub(crate) fn check_model(&self, requested: Option<&str>) -> Result<(), Failure> {
        let served = &self.model().id;
        match requested {
            Some(requested) if !requested.is_empty() && requested != served => {
                Err(problem::model_not_found(requested, served))
            }
            _ => Ok(()),
        }
    }

    /// Awaits work until the deadline of its request, which `max_request_seconds` sets. At the deadline, drops the
    /// work, which cancels its queries.
    pub(crate) async fn within_deadline<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let done = tokio::time::timeout_at(deadline, work).await;
        done.map_err(|_| problem::deadline_exceeded(self.config.max_request_seconds))
    }

    /// Runs a CPU-bound job. Small jobs run inline. Others wait for the account's turn and run on a blocking thread, so
    /// that they do not delay other requests. On a blocking thread, the job continues even if the client disconnects,
    /// and holds `guard` until it is done.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        guard: impl Send + 'static,
        account: u64,
        size: JobSize,
        job: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        if is_small(size) {
            return job(self);
        }
        let app = self.clone();
        let job = move || {
            let done = job(&app);
            drop(guard);
            done
        };
        self.turns.run(account, size.memory, job).await
    }
}

/// Returns `true` if a job of this size may run on the reactor.
pub(crate) fn is_small(size: JobSize) -> bool {
    size.bytes <= MAX_INLINE_BYTES
}
