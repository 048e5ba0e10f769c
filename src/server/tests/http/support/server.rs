//! A server on a free port, and the client's side of a request.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;
use surprisal_engine::Scorer;
use surprisal_server::{ApiKeys, App, KeyRing, ServerConfig, TextCodec, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::BOS;
use super::codec::ByteCodec;
use super::scorer::LetterScorer;

/// A running server.
pub(crate) struct Server<S = LetterScorer> {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) scorer: Arc<S>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<io::Result<()>>,
}

/// A response that has been read.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) allow: Option<String>,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) async fn read(response: Response) -> Self {
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Self {
            status: response.status().as_u16(),
            content_type: header("content-type").unwrap_or_default(),
            retry_after: header("retry-after"),
            allow: header("allow"),
            text: response.text().await.unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that the response is a problem; returns its status, the last part of its type, and the whole problem.
    pub(crate) fn problem(&self) -> (u16, String, Value) {
        let problem = self.json();
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        assert_eq!(problem["status"], self.status, "{self:?}");
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        let name = problem["type"].as_str().unwrap().strip_prefix("urn:surprisal:problem:").unwrap().to_owned();
        (self.status, name, problem)
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with_config(ServerConfig::default(), Some(BOS)).await
    }

    pub(crate) async fn with_config(config: ServerConfig, bos: Option<u32>) -> Self {
        Self::with_letters(config, bos, ApiKeys::default()).await
    }

    pub(crate) async fn with_keys(keys: impl Into<KeyRing>) -> Self {
        Self::with_letters(ServerConfig::default(), Some(BOS), keys).await
    }

    async fn with_letters(config: ServerConfig, bos: Option<u32>, keys: impl Into<KeyRing>) -> Self {
        Self::with_scorer(Arc::new(LetterScorer::new()), config, bos, keys).await
    }
}

impl<S: Scorer> Server<S> {
    /// Serves any scorer, with a codec whose tokens are bytes.
    pub(crate) async fn with_scorer(
        scorer: Arc<S>,
        config: ServerConfig,
        bos: Option<u32>,
        keys: impl Into<KeyRing>,
    ) -> Self {
        Self::with_codec(scorer, Arc::new(ByteCodec(bos)), config, keys).await
    }

    /// Serves any scorer and any codec.
    pub(crate) async fn with_codec(
        scorer: Arc<S>,
        codec: Arc<dyn TextCodec>,
        config: ServerConfig,
        keys: impl Into<KeyRing>,
    ) -> Self {
        let app = App::new(scorer.clone(), codec, config).with_api_keys(keys);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(serve(listener, app, async move { stopped.await.unwrap_or_default() }));
        // If a provider is installed already, this fails and the first one stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { url, client, scorer, stop, running }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Reply::read(self.client.get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_as("application/json", path, body.to_string()).await
    }

    pub(crate) async fn post_as(&self, content_type: &str, path: &str, body: impl Into<String>) -> Reply {
        let request = self.client.post(format!("{}{path}", self.url)).header("content-type", content_type);
        Reply::read(request.body(body.into()).send().await.unwrap()).await
    }

    /// Sends a whole request before it reads any of the response, as simple clients do. Returns the status and the
    /// whole response.
    pub(crate) async fn send_whole(&self, content_type: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {content_type}");
        let head = format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.url.strip_prefix("http://").unwrap()).await.unwrap()
    }

    /// Sends bytes. Returns everything that arrives until the server closes the connection.
    pub(crate) async fn exchange(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        // The server may have closed the connection already.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the server closes the connection in time");
        String::from_utf8(answer).unwrap()
    }

    /// Sends a request to `/logprobs` without waiting for the response.
    pub(crate) fn spawn_logprobs(&self, body: &Value) -> JoinHandle<Reply> {
        let request = self.client.post(format!("{}/logprobs", self.url)).json(body);
        tokio::spawn(async move { Reply::read(request.send().await.unwrap()).await })
    }

    /// Returns the value of a metric. `name` includes the labels, as in `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text;
        find_metric(&text, name).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Returns the value of a metric, or 0 if it has no value yet.
    pub(crate) async fn metric_or_zero(&self, name: &str) -> f64 {
        find_metric(&self.get("/metrics").await.text, name).unwrap_or(0.0)
    }

    /// Waits until this many queries are in flight.
    pub(crate) async fn until_running(&self, queries: u64) {
        until(async || self.scorer.stats().running_queries == queries).await;
    }

    /// Shuts down the server. The returned handle completes when the server has stopped.
    pub(crate) fn stop(self) -> JoinHandle<io::Result<()>> {
        self.stop.send(()).unwrap();
        self.running
    }
}

fn find_metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Waits for a condition that must become true.
pub(crate) async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the condition becomes true in time");
}
