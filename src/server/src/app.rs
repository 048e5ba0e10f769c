//! `App`: what every route shares.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use surprisal_api::TokenizerInfo;
use surprisal_engine::{ModelCard, Scorer};
use surprisal_model::TextTokenizer;

use crate::admission::Admission;
use crate::auth::ApiKeys;
use crate::config::ServerConfig;
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::problem::{self, Failure};

/// Bytes that are read or written in less time than another thread takes to wake up on a busy machine.
const LITTLE: usize = 4096;

/// What a token takes in an answer, about.
pub(crate) const TOKEN_BYTES: usize = 16;

/// Texts to token ids and back, by the model's own tokenizer.
pub trait TextCodec: Send + Sync + 'static {
    /// Token ids of a text, without special tokens.
    ///
    /// # Errors
    /// Why the text cannot be encoded, in words.
    fn encode(&self, text: &str) -> Result<Vec<u32>, String>;

    /// As [`encode`](Self::encode), and each token's bytes in the text, `[from, to)`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String>;

    /// The text of token ids.
    ///
    /// # Errors
    /// Why they cannot be decoded, in words.
    fn decode(&self, tokens: &[u32]) -> Result<String, String>;

    /// The text of token ids that were drawn: special tokens have none.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn text(&self, tokens: &[u32]) -> Result<String, String> {
        self.decode(tokens)
    }

    /// True if [`encode`](Self::encode) puts a space before every text, also before one that begins with a space.
    fn adds_space(&self) -> bool {
        false
    }

    /// The token that the model's own rule puts before every text, if it puts one.
    fn bos(&self) -> Option<u32>;

    /// The tokens that end a text.
    fn ends(&self) -> Vec<u32> {
        self.info().eos_token_id.into_iter().collect()
    }

    /// What `/tokenizer_info` tells of the tokenizer; the model's own numbers are left to the server.
    fn info(&self) -> TokenizerInfo;
}

impl TextCodec for TextTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.encode(text).map_err(|error| error.to_string())
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String> {
        self.encode_with_offsets(text).map_err(|error| error.to_string())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        self.decode(tokens).map_err(|error| error.to_string())
    }

    fn text(&self, tokens: &[u32]) -> Result<String, String> {
        self.decode_without_special(tokens).map_err(|error| error.to_string())
    }

    fn adds_space(&self) -> bool {
        self.adds_space()
    }

    fn bos(&self) -> Option<u32> {
        self.added_bos()
    }

    fn ends(&self) -> Vec<u32> {
        self.end_token_ids().to_vec()
    }

    fn info(&self) -> TokenizerInfo {
        TokenizerInfo {
            tokenizer_class: self.class().map(str::to_owned),
            bos_token: self.bos_id().and_then(|id| self.id_to_token(id)),
            bos_token_id: self.bos_id(),
            eos_token: self.eos_id().and_then(|id| self.id_to_token(id)),
            eos_token_id: self.eos_id(),
            add_bos_token: self.added_bos().is_some(),
            ..TokenizerInfo::default()
        }
    }
}

/// A served model and the server's state; clones share it.
#[derive(Clone)]
pub struct App {
    pub(crate) scorer: Arc<dyn Scorer>,
    pub(crate) codec: Arc<dyn TextCodec>,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) keys: Arc<ApiKeys>,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
    #[cfg(feature = "otlp")]
    pub(crate) spans: Option<Arc<crate::SpanExport>>,
    /// Unix time of the start, seconds.
    pub(crate) started: u64,
}

impl App {
    /// Serves `scorer`, whose texts `codec` tokenises, within the bounds of `config`.
    pub fn new(scorer: Arc<dyn Scorer>, codec: Arc<dyn TextCodec>, config: ServerConfig) -> Self {
        let admission = Admission::new(&config);
        let metrics = Metrics::new(&scorer, &admission).expect("metric names are constants, valid and distinct");
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            scorer,
            codec,
            config: Arc::new(config),
            keys: Arc::default(),
            admission,
            metrics: Arc::new(metrics),
            drain: Drain::default(),
            #[cfg(feature = "otlp")]
            spans: None,
            started,
        }
    }

    /// Does work only for those who send one of these keys; the model, health and metrics stay open to all.
    #[must_use]
    pub fn with_api_keys(mut self, keys: ApiKeys) -> Self {
        self.keys = Arc::new(keys);
        self
    }

    /// Sends each request's span to a collector.
    #[cfg(feature = "otlp")]
    #[must_use]
    pub fn with_span_export(mut self, spans: crate::SpanExport) -> Self {
        self.spans = Some(Arc::new(spans));
        self
    }

    /// Whether spans are sent anywhere.
    pub(crate) fn records(&self) -> bool {
        #[cfg(feature = "otlp")]
        return self.spans.is_some();
        #[cfg(not(feature = "otlp"))]
        false
    }

    pub(crate) fn model(&self) -> &ModelCard {
        self.scorer.describe()
    }

    /// Refuses a request for a model that is not this one.
    pub(crate) fn check_model(&self, asked: Option<&str>) -> Result<(), Failure> {
        let served = &self.model().id;
        match asked {
            Some(asked) if asked != served => Err(problem::model_not_found(asked, served)),
            _ => Ok(()),
        }
    }

    /// Gives up work that takes longer than a request may; dropping it cancels its queries.
    pub(crate) async fn within_deadline<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let seconds = self.config.max_request_seconds;
        let done = tokio::time::timeout(Duration::from_secs(seconds), work).await;
        done.map_err(|_| problem::deadline_exceeded(seconds))
    }

    /// Runs CPU-bound work on about so many bytes: where other requests do not wait for it, unless there is little of it. It
    /// goes on without its client, and so long `held` is held.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        held: impl Send + 'static,
        bytes: usize,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        if bytes <= LITTLE {
            return work(self);
        }
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&app);
            drop(held);
            done
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request's work was cut off");
            Err(problem::internal())
        })
    }
}
