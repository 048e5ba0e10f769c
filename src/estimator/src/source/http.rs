//! A server as a [`LogprobSource`], with limits on request size and concurrency, and checks of every response.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Once;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use surprisal_api::{LogprobsRequest, LogprobsResponse, TokenizeRequest, TokenizerInfo};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Error;
use crate::source::failure::{CONNECT_TIMEOUT, Failure, send, transport_error};
use crate::source::identity::ModelIdentity;
use crate::source::options::HttpOptions;
use crate::source::responses::{MAX_INFO_BYTES, check_logprobs_response, max_logprobs_bytes, max_tokenized_bytes};
use crate::source::retry::RetryPolicy;
use crate::source::served_model::{ModelList, with_bos};
use crate::source::{LogprobSource, Model, ScoreQuery, Tokenize, TokensAndOffsets, group_within_limits};

/// The header that identifies the client to a surprisal server.
const CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");

/// Maximum time for retries of the first request. Later requests are retried for longer; for the first one, there may
/// be no server at the address.
const FIRST_GIVE_UP_AFTER: Duration = Duration::from_secs(3);

/// Timeout of requests that need no forward pass, such as the request for the list of models.
const MODELS_TIMEOUT: Duration = Duration::from_secs(60);

/// The response of `/tokenize`.
#[derive(Deserialize)]
struct TokenizeAnswer {
    tokens: Vec<u32>,
    /// Only a surprisal server returns offsets.
    #[serde(default)]
    offsets: Option<Vec<[usize; 2]>>,
}

/// A server as a source of log-probabilities and of tokens.
#[derive(Debug)]
pub struct HttpSource {
    client: Client,
    base: String,
    model: Model,
    vocabulary: Option<usize>,
    options: HttpOptions,
    slots: Semaphore,
    identity: ModelIdentity,
}

impl HttpSource {
    /// Connects to the server at `url` (`http://host:port`) and reads which model it serves.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit of zero or an API key that is not visible ASCII; the errors of the request to
    /// `/v1/models`.
    pub async fn connect(url: &str, options: HttpOptions) -> Result<Self, Error> {
        options.check()?;
        install_tls_provider();
        let base = url.trim_end_matches('/').to_owned();
        let client = Client::builder()
            .default_headers(default_headers(url, &options)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            .build()
            .map_err(|error| transport_error(&base, error))?;
        let models_url = format!("{base}/v1/models");
        let give_up_after = options.retry.give_up_after.min(FIRST_GIVE_UP_AFTER);
        let first_retry = RetryPolicy { give_up_after, ..options.retry.clone() };
        let models: ModelList = first_retry.run(|| get_once(&client, &models_url, &options)).await?;
        let served = models.choose(&models_url, options.model.as_deref())?;
        let fingerprint = served.fingerprint(&models_url, &options)?;
        let identity = match served.lists_fingerprint() {
            true => ModelIdentity::listed(&base, &fingerprint),
            false => ModelIdentity::default(),
        };
        let max_length = served.max_model_len.unwrap_or(usize::MAX);
        Ok(Self {
            vocabulary: served.vocab_size,
            model: Model { name: served.id, fingerprint, max_length },
            slots: Semaphore::new(options.concurrency),
            client,
            base,
            options,
            identity,
        })
    }

    /// Returns the number of token ids; `None` if the server does not report it.
    pub fn vocabulary(&self) -> Option<usize> {
        self.vocabulary
    }

    /// Returns the token ids of a text, without BOS.
    ///
    /// # Errors
    /// The errors of the request to `/tokenize`.
    pub async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.options.retry.run(|| self.tokenize_once(text)).await
    }

    /// Sends a request to `/logprobs` unchanged; its contexts and targets may be texts.
    ///
    /// # Errors
    /// The errors of the request; [`Error::UnexpectedResponse`] or [`Error::ModelChanged`] for a response that cannot
    /// be right.
    pub async fn post_logprobs(&self, request: &LogprobsRequest) -> Result<LogprobsResponse, Error> {
        let limit = max_logprobs_bytes(request);
        let attempt = || self.post_once("/logprobs", request, limit);
        let response: LogprobsResponse = self.options.retry.run(attempt).await?;
        check_logprobs_response(request, &response)
            .map_err(|reason| Error::UnexpectedResponse { url: format!("{}/logprobs", self.base), reason })?;
        self.identity.check(&self.base, with_bos(response.fingerprint.clone(), self.options.bos))?;
        Ok(response)
    }

    /// Returns the server's address.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Sends a request without retries. The response may have at most `limit` bytes.
    async fn post_once<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        limit: usize,
    ) -> Result<A, Failure> {
        let url = format!("{}{path}", self.base);
        let body = send(&url, self.client.post(&url).json(body), limit).await?;
        parse(&url, &body).map_err(Failure::permanent)
    }

    /// Returns the token ids of a text like [`tokenize`](Self::tokenize), but without retries.
    pub(crate) async fn tokenize_once(&self, text: &str) -> Result<Vec<u32>, Failure> {
        // vLLM and SGLang do not require the model's name.
        let request =
            TokenizeRequest { prompt: text.to_owned(), add_special_tokens: Some(false), ..TokenizeRequest::default() };
        let answer: TokenizeAnswer = self.post_once("/tokenize", &request, max_tokenized_bytes(text)).await?;
        Ok(answer.tokens)
    }

    /// Returns the token ids and offsets of a text, without retries. The server must be a surprisal server.
    pub(crate) async fn tokenize_with_offsets_once(&self, text: &str) -> Result<Option<TokensAndOffsets>, Failure> {
        let request = TokenizeRequest {
            prompt: text.to_owned(),
            add_special_tokens: Some(false),
            return_offsets: Some(true),
            ..TokenizeRequest::default()
        };
        let answer: TokenizeAnswer = self.post_once("/tokenize", &request, max_tokenized_bytes(text)).await?;
        Ok(answer.offsets.map(|offsets| (answer.tokens, offsets)))
    }

    /// Returns a surprisal server's description of its tokenizer, without retries.
    pub(crate) async fn tokenizer_info_once(&self) -> Result<TokenizerInfo, Failure> {
        get_once(&self.client, &format!("{}/tokenizer_info", self.base), &self.options).await
    }

    /// Waits until one more request may be in flight.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed. Even if it were, the only loss would be the bound on concurrency.
        self.slots.acquire().await.ok()
    }

    /// Sends one request for log-probabilities, without retries, and checks the response.
    pub(crate) async fn score_once(&self, queries: &[ScoreQuery]) -> Result<Vec<Vec<f32>>, Failure> {
        let HttpOptions { api, bos, .. } = self.options;
        let url = format!("{}{}", self.base, api.path());
        let request = self.client.post(&url).json(&api.request(queries, &self.model.name, bos));
        let body = send(&url, request, api.max_response_bytes(queries, bos)).await?;
        let wrong = |reason| Failure::permanent(Error::UnexpectedResponse { url: url.clone(), reason });
        let (logprobs, fingerprint) = api.read(&body, queries, bos).map_err(wrong)?;
        if let Some(now) = fingerprint {
            self.identity.check(&self.base, with_bos(now, bos)).map_err(Failure::permanent)?;
        }
        Ok(logprobs)
    }

    /// Returns the identity of the model.
    pub(crate) fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// Makes this source's responses match the model behind another server.
    pub(crate) fn share_identity(&mut self, identity: ModelIdentity) {
        self.identity = identity;
    }
}

impl LogprobSource for HttpSource {
    fn model(&self) -> &Model {
        &self.model
    }

    fn concurrency(&self) -> usize {
        self.options.concurrency
    }

    /// Splits `queries` into requests within the limits of [`HttpOptions`]. Neighboring queries stay together, so that
    /// the server can share their prefixes.
    async fn logprobs(&self, queries: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        let lengths = queries.iter().map(ScoreQuery::sequence_length);
        let (max_queries, max_tokens) = (self.options.queries_per_request, self.options.tokens_per_request);
        let ranges = group_within_limits(lengths, max_queries, max_tokens);
        let queries = &queries;
        let attempt = async move |range: Range<usize>| {
            let _slot = self.slot().await;
            self.score_once(&queries[range]).await
        };
        let requests: Vec<_> =
            (ranges.into_iter()).map(|range| self.options.retry.run(move || attempt(range.clone()))).collect();
        let answers: Vec<_> = stream::iter(requests).buffered(self.options.concurrency).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }
}

impl Tokenize for HttpSource {
    async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.tokenize(text).await
    }
}

/// Sends a GET request that needs no forward pass, without retries.
async fn get_once<A: DeserializeOwned>(client: &Client, url: &str, options: &HttpOptions) -> Result<A, Failure> {
    let body = send(url, client.get(url).timeout(options.timeout.min(MODELS_TIMEOUT)), MAX_INFO_BYTES).await?;
    parse(url, &body).map_err(Failure::permanent)
}

fn parse<A: DeserializeOwned>(url: &str, body: &[u8]) -> Result<A, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::UnexpectedResponse { url: url.to_owned(), reason: error.to_string() })
}

/// Returns the headers of every request.
fn default_headers(url: &str, options: &HttpOptions) -> Result<HeaderMap, Error> {
    // One id for all requests, so that the server schedules them as one client.
    let client = HeaderValue::try_from(format!("estimator-{:016x}", RandomState::new().hash_one(url)));
    let mut headers = HeaderMap::from_iter(client.map(|client| (CLIENT_ID, client)));
    if let Some(key) = &options.api_key {
        headers.insert(AUTHORIZATION, key.header()?);
    }
    Ok(headers)
}

/// Installs the cryptography provider that rustls needs, once per process, unless one is already installed.
fn install_tls_provider() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("TLS provider already installed");
        }
    });
}
