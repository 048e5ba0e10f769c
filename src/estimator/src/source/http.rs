//! A server as a `LogprobSource`: bounded requests, bounded concurrency, answers checked.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Once;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use surprisal_api::{
    DetokenizeRequest, DetokenizeResponse, LogprobsRequest, LogprobsResponse, TokenizeRequest, TokenizerInfo,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Error;
use crate::source::dialect::{Api, Wording};
use crate::source::retry::{CONNECT_TIMEOUT, Failure, Retry, send};
use crate::source::{LogprobSource, Model, ScoreQuery, Tokenize, group};

/// By this a surprisal server knows whose requests are one client's.
const CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");

/// A server that was never there is not waited for as long as one that went away.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);

/// What a server serves it knows without work; one that does not say it for this long hangs.
const MODELS_TIMEOUT: Duration = Duration::from_secs(60);

/// How a server is asked.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Requests in flight at once.
    pub concurrency: usize,
    /// The most queries in one request.
    pub queries_per_request: usize,
    /// The most tokens (BOS, context and target) in one request, unless a single query has more.
    pub tokens_per_request: usize,
    /// A request without an answer for this long has failed.
    pub timeout: Duration,
    /// When and for how long failed requests are tried again.
    pub retry: Retry,
    /// How the server is spoken to.
    pub api: Api,
    /// The model, where a server has several.
    pub model: Option<String>,
    /// The token before every sequence. Servers other than ours add none to token ids; ours is told to add none where one is
    /// given.
    pub bos: Option<u32>,
    /// What the server asks for, sent as a bearer token.
    pub api_key: Option<ApiKey>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            concurrency: 8,
            queries_per_request: 64,
            tokens_per_request: 32 * 1024,
            // Our server's own deadline: on a slow one, the last of eight requests waits for seven.
            timeout: Duration::from_secs(3600),
            retry: Retry::default(),
            api: Api::default(),
            model: None,
            bos: None,
            api_key: None,
        }
    }
}

/// A key that a server asks for; it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// This key.
    pub fn new(key: String) -> Self {
        Self(key)
    }

    /// The key of an environment variable, if it is set and not empty.
    pub fn from_env(variable: &str) -> Option<Self> {
        std::env::var(variable).ok().filter(|key| !key.is_empty()).map(Self)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(...)")
    }
}

/// What `/v1/models` says; servers other than ours say less.
#[derive(Deserialize)]
struct Models {
    data: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    id: String,
    #[serde(default)]
    max_model_len: Option<usize>,
    #[serde(default)]
    vocab_size: Option<usize>,
    #[serde(default)]
    fingerprint: Option<String>,
}

/// What `/tokenize` says.
#[derive(Deserialize)]
struct Tokenized {
    tokens: Vec<u32>,
}

/// A server, by its URL.
#[derive(Debug)]
pub struct HttpSource {
    client: Client,
    base: String,
    model: Model,
    vocabulary: Option<usize>,
    options: HttpOptions,
    slots: Semaphore,
}

impl HttpSource {
    /// Connects to the server at `url` (`http://host:port`) and asks which model it serves.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options that are zero; otherwise whatever kept the server from answering `/v1/models`.
    pub async fn connect(url: &str, options: HttpOptions) -> Result<Self, Error> {
        for (field, value) in [
            ("concurrency", options.concurrency),
            ("queries_per_request", options.queries_per_request),
            ("tokens_per_request", options.tokens_per_request),
        ] {
            if value == 0 {
                return Err(Error::invalid(field, value, "at least 1"));
            }
        }
        install_tls_provider();
        let base = url.trim_end_matches('/').to_owned();
        // All requests are one client's, so that a job takes one turn among those of others.
        let client = HeaderValue::try_from(format!("estimator-{:016x}", RandomState::new().hash_one(url)));
        let mut headers = HeaderMap::from_iter(client.map(|client| (CLIENT_ID, client)));
        if let Some(ApiKey(key)) = &options.api_key {
            let value = HeaderValue::try_from(format!("Bearer {key}"));
            let mut value = value.map_err(|_| Error::invalid("API key", "not shown", "visible ASCII"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            .build()
            .map_err(|error| Error::transport(&base, error))?;
        let models_url = format!("{base}/v1/models");
        let first = Retry { patience: options.retry.patience.min(FIRST_PATIENCE), ..options.retry.clone() };
        let models = first.run(|| look_up(&client, &models_url, &options)).await?;
        let served = choose(&models_url, models, options.model.as_deref())?;
        let fingerprint = fingerprint(&models_url, &served, &options)?;
        let max_length = served.max_model_len.unwrap_or(usize::MAX);
        Ok(Self {
            vocabulary: served.vocab_size,
            model: Model { name: served.id, fingerprint, max_length },
            slots: Semaphore::new(options.concurrency),
            client,
            base,
            options,
        })
    }

    /// Number of token ids, if the server says.
    pub fn vocabulary(&self) -> Option<usize> {
        self.vocabulary
    }

    /// The token ids of a text, without BOS.
    ///
    /// # Errors
    /// Whatever kept the server from answering `/tokenize`.
    pub async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.options.retry.run(|| self.tokenize_once(text)).await
    }

    /// The text of token ids.
    ///
    /// # Errors
    /// Whatever kept the server from answering `/detokenize`.
    pub async fn detokenize(&self, tokens: &[u32]) -> Result<String, Error> {
        let request = DetokenizeRequest { model: None, tokens: tokens.to_vec() };
        let answer: DetokenizeResponse = self.post("/detokenize", &request).await?;
        Ok(answer.prompt)
    }

    /// Sends one request of `/logprobs` as it is, texts and all.
    ///
    /// # Errors
    /// Whatever kept the server from answering it.
    pub async fn ask(&self, request: &LogprobsRequest) -> Result<LogprobsResponse, Error> {
        self.post("/logprobs", request).await
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.base
    }

    async fn post<A: DeserializeOwned>(&self, path: &str, body: &(impl Serialize + Sync)) -> Result<A, Error> {
        self.options.retry.run(|| self.post_once(path, body)).await
    }

    async fn post_once<A: DeserializeOwned>(&self, path: &str, body: &(impl Serialize + Sync)) -> Result<A, Failure> {
        let url = format!("{}{path}", self.base);
        let body = send(&url, self.client.post(&url).json(body)).await?;
        parse(&url, &body).map_err(Failure::lasting)
    }

    /// [`tokenize`](Self::tokenize), tried once.
    pub(crate) async fn tokenize_once(&self, text: &str) -> Result<Vec<u32>, Failure> {
        // Neither vLLM nor SGLang minds the name's absence.
        let request = TokenizeRequest { model: None, prompt: text.to_owned(), add_special_tokens: false };
        let answer: Tokenized = self.post_once("/tokenize", &request).await?;
        Ok(answer.tokens)
    }

    /// What a surprisal server says of its tokenizer, asked once.
    pub(crate) async fn tokenizer_info_once(&self) -> Result<TokenizerInfo, Failure> {
        look_up(&self.client, &format!("{}/tokenizer_info", self.base), &self.options).await
    }

    /// A place among the requests in flight.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, and without a permit the request would only be unbounded.
        self.slots.acquire().await.ok()
    }

    /// One request for log-probabilities, tried once, its answer checked.
    pub(crate) async fn attempt(&self, queries: &[ScoreQuery]) -> Result<Vec<Vec<f32>>, Failure> {
        let HttpOptions { api, bos, .. } = self.options;
        let wording = Wording { model: &self.model.name, bos };
        let url = format!("{}{}", self.base, api.path());
        let request = self.client.post(&url).json(&api.request(queries, &wording));
        let body = send(&url, request).await?;
        let wrong = |reason| Failure::lasting(Error::Answer { url: url.clone(), reason });
        let (logprobs, fingerprint) = api.read(&body, queries, &wording).map_err(wrong)?;
        match fingerprint.map(|fingerprint| with_bos(fingerprint, bos)) {
            Some(is) if is != self.model.fingerprint => {
                Err(Failure::lasting(Error::ModelChanged { was: self.model.fingerprint.clone(), is }))
            }
            _ => Ok(logprobs),
        }
    }
}

impl LogprobSource for HttpSource {
    fn model(&self) -> &Model {
        &self.model
    }

    fn concurrency(&self) -> usize {
        self.options.concurrency
    }

    /// Splits `queries` into requests within the [`HttpOptions`]; neighbours stay together, so that the server finds
    /// their shared prefixes.
    async fn logprobs(&self, queries: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        let lengths = queries.iter().map(ScoreQuery::sequence_length);
        let ranges = group(lengths, self.options.queries_per_request, self.options.tokens_per_request);
        let queries = &queries;
        let attempt = async move |range: Range<usize>| {
            let _slot = self.slot().await;
            self.attempt(&queries[range]).await
        };
        let request = |range: Range<usize>| self.options.retry.run(move || attempt(range.clone()));
        let answers = ranges.into_iter().map(request);
        let answers: Vec<_> =
            stream::iter(answers.collect::<Vec<_>>()).buffered(self.options.concurrency).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }
}

impl Tokenize for HttpSource {
    async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.tokenize(text).await
    }
}

/// What a server knows without work, asked once.
async fn look_up<A: DeserializeOwned>(client: &Client, url: &str, options: &HttpOptions) -> Result<A, Failure> {
    let body = send(url, client.get(url).timeout(options.timeout.min(MODELS_TIMEOUT))).await?;
    parse(url, &body).map_err(Failure::lasting)
}

fn parse<A: DeserializeOwned>(url: &str, body: &[u8]) -> Result<A, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Answer { url: url.to_owned(), reason: error.to_string() })
}

/// The model that was asked for by name, or the first.
fn choose(url: &str, models: Models, name: Option<&str>) -> Result<Served, Error> {
    let ids: Vec<String> = models.data.iter().map(|model| model.id.clone()).collect();
    let chosen = models.data.into_iter().find(|model| name.is_none_or(|name| name == model.id));
    chosen.ok_or_else(|| {
        let reason = match name {
            Some(name) => format!("{name} is not among the models that are served: {}", ids.join(", ")),
            None => "no model is served".to_owned(),
        };
        Error::Answer { url: url.to_owned(), reason }
    })
}

/// What the served model's answers depend on.
fn fingerprint(url: &str, served: &Served, options: &HttpOptions) -> Result<String, Error> {
    let own = served.fingerprint.clone();
    let model = match options.api {
        Api::Surprisal => {
            let reason = "it has no fingerprint: not a surprisal server? then say which api it has".to_owned();
            own.ok_or_else(|| Error::Answer { url: url.to_owned(), reason })?
        }
        // Others make no promise of equal bits; the name is all there is.
        api => own.unwrap_or_else(|| format!("{}:{}", api.name(), served.id)),
    };
    Ok(with_bos(model, options.bos))
}

/// A BOS that a server is sent is a part of what its answers depend on.
fn with_bos(fingerprint: String, bos: Option<u32>) -> String {
    match bos {
        Some(bos) => format!("{fingerprint}, bos {bos}"),
        None => fingerprint,
    }
}

/// rustls asks for a process-wide provider of cryptography; one that is already there is left alone.
fn install_tls_provider() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("another TLS provider is installed already");
        }
    });
}
