//! A surprisal server as a `LogprobSource`: bounded requests, bounded concurrency, answers checked.

use std::sync::Once;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use surprisal_api::{
    Detail, DetokenizeRequest, DetokenizeResponse, LogprobsRequest, LogprobsResponse, ModelInfo, ModelList, QuerySpec,
    TokenizeRequest, TokenizeResponse,
};
use tokio::sync::Semaphore;

use crate::retry::Retry;
use crate::source::group;
use crate::{Error, LogprobSource, Model, ScoreQuery};

/// A server that does not take the connection for this long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that was never there is not waited for as long as one that went away.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);

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
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            concurrency: 8,
            queries_per_request: 64,
            tokens_per_request: 32 * 1024,
            timeout: Duration::from_secs(600),
            retry: Retry::default(),
        }
    }
}

/// A surprisal server, by its URL.
#[derive(Debug)]
pub struct HttpSource {
    client: Client,
    base: String,
    model: Model,
    vocabulary: usize,
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
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            .build()
            .map_err(|error| Error::transport(&base, error))?;
        let models_url = format!("{base}/v1/models");
        let first = Retry { patience: options.retry.patience.min(FIRST_PATIENCE), ..options.retry.clone() };
        let models: ModelList = fetch(&first, &models_url, || client.get(&models_url)).await?;
        let info = only_model(&models_url, models)?;
        Ok(Self {
            vocabulary: info.vocab_size,
            model: Model { name: info.id, fingerprint: info.fingerprint, max_length: info.max_model_len },
            slots: Semaphore::new(options.concurrency),
            client,
            base,
            options,
        })
    }

    /// Number of token ids.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The token ids of a text, without BOS.
    ///
    /// # Errors
    /// Whatever kept the server from answering `/tokenize`.
    pub async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        let request = TokenizeRequest { model: None, prompt: text.to_owned(), add_special_tokens: false };
        let answer: TokenizeResponse = self.post("/tokenize", &request).await?;
        Ok(answer.tokens)
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

    async fn post<A: DeserializeOwned>(&self, path: &str, body: &(impl serde::Serialize + Sync)) -> Result<A, Error> {
        let url = format!("{}{path}", self.base);
        fetch(&self.options.retry, &url, || self.client.post(&url).json(body)).await
    }

    /// One request of `/logprobs`, its answer checked.
    async fn request(&self, queries: &[ScoreQuery]) -> Result<Vec<Vec<f32>>, Error> {
        let spec = |query: &ScoreQuery| QuerySpec::new(query.context.clone().into(), query.target.clone().into());
        let request = LogprobsRequest {
            queries: Some(queries.iter().map(spec).collect()),
            detail: Detail::Tokens,
            ..LogprobsRequest::default()
        };
        // The semaphore is never closed, and without a permit the request would only be unbounded.
        let _slot = self.slots.acquire().await.ok();
        let answer = self.ask(&request).await?;
        self.check(queries, answer)
    }

    fn check(&self, queries: &[ScoreQuery], answer: LogprobsResponse) -> Result<Vec<Vec<f32>>, Error> {
        let wrong = |reason| Error::Answer { url: format!("{}/logprobs", self.base), reason };
        if answer.fingerprint != self.model.fingerprint {
            return Err(Error::ModelChanged { was: self.model.fingerprint.clone(), is: answer.fingerprint });
        }
        if answer.results.len() != queries.len() {
            let (asked, given) = (queries.len(), answer.results.len());
            return Err(wrong(format!("{asked} queries, {given} results")));
        }
        let pairs = queries.iter().zip(answer.results).enumerate();
        pairs
            .map(|(index, (query, result))| {
                let logprobs = result.logprobs.unwrap_or_default();
                if logprobs.len() == query.target.len() {
                    return Ok(logprobs);
                }
                let (asked, given) = (query.target.len(), logprobs.len());
                Err(wrong(format!(
                    "query {index} of the request has {asked} target tokens, its result {given} log-probabilities"
                )))
            })
            .collect()
    }
}

impl LogprobSource for HttpSource {
    fn model(&self) -> &Model {
        &self.model
    }

    /// Splits `queries` into requests within the [`HttpOptions`]; neighbours stay together, so that the server finds
    /// their shared prefixes.
    async fn logprobs(&self, queries: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        let lengths = queries.iter().map(ScoreQuery::sequence_length);
        let ranges = group(lengths, self.options.queries_per_request, self.options.tokens_per_request);
        let answers = ranges.into_iter().map(|range| self.request(&queries[range]));
        let answers: Vec<_> =
            stream::iter(answers.collect::<Vec<_>>()).buffered(self.options.concurrency).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Asks until there is an answer or trying again is no use, and reads it as JSON.
async fn fetch<A: DeserializeOwned>(
    retry: &Retry,
    url: &str,
    request: impl Fn() -> RequestBuilder + Send + Sync,
) -> Result<A, Error> {
    let body = retry.run(url, request).await?;
    serde_json::from_slice(&body).map_err(|error| Error::Answer { url: url.to_owned(), reason: error.to_string() })
}

fn only_model(url: &str, models: ModelList) -> Result<ModelInfo, Error> {
    models
        .data
        .into_iter()
        .next()
        .ok_or_else(|| Error::Answer { url: url.to_owned(), reason: "no model is served".to_owned() })
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
