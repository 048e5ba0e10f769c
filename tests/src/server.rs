//! A real server on a free loopback port, and a client for it.

use std::path::Path;
use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::Value;
use surprisal_engine::{CpuBackend, CpuConfig, Engine, SchedulerConfig};
use surprisal_model::{Checkpoint, TextTokenizer};
use surprisal_server::{App, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server that stops when it is dropped.
#[derive(Debug)]
pub struct TestServer {
    /// Base URL, `http://127.0.0.1:port`.
    pub url: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl TestServer {
    /// Serves the checkpoint in `dir`.
    ///
    /// # Panics
    ///
    /// If the server cannot start.
    pub async fn start(dir: &Path, scheduler: SchedulerConfig, config: ServerConfig) -> Self {
        let checkpoint = Checkpoint::open(dir).expect("the checkpoint opens");
        let tokenizer = TextTokenizer::open(dir, checkpoint.config()).expect("the tokenizer opens");
        let cpu = CpuConfig { cache_bytes: 256 << 20, ..CpuConfig::default() };
        let backend = CpuBackend::load(&checkpoint, cpu).expect("the model loads");
        let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
        let engine = Engine::start("test".into(), fingerprint, device, backend, scheduler).expect("the engine starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("the listener has an address"));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let app = App::new(Arc::new(engine), Arc::new(tokenizer), config);
        let task = tokio::spawn(surprisal_server::serve(listener, app, shutdown));
        // The client needs a cryptography provider even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { url, client: reqwest::Client::new(), stop: Some(stop), task }
    }

    /// Sends `POST path` with a JSON body; returns the status and the JSON of the response.
    ///
    /// # Panics
    ///
    /// If there is no response, or it is not JSON.
    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).json(body);
        let response = request.send().await.expect("the server answers");
        (response.status(), response.json().await.expect("the answer is JSON"))
    }

    /// Sends `POST /logprobs` and returns the JSON of the response.
    ///
    /// # Panics
    ///
    /// If the status is not 200.
    pub async fn logprobs(&self, body: &Value) -> Value {
        let (status, answer) = self.post("/logprobs", body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Returns the value of a metric without labels.
    ///
    /// # Panics
    ///
    /// If the metric does not exist.
    pub async fn metric(&self, name: &str) -> f64 {
        let response = self.client.get(format!("{}/metrics", self.url)).send().await.expect("the server answers");
        let text = response.text().await.expect("metrics are text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("the metric exists").parse().expect("a metric is a number")
    }

    /// Shuts the server down, and waits until it has stopped.
    ///
    /// # Panics
    ///
    /// If the server failed.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.expect("the server did not panic").expect("the server did not fail");
    }
}

/// Returns the bits of a result's log-probabilities.
///
/// # Panics
///
/// If the result has none.
pub fn bits(result: &Value) -> Vec<u32> {
    let logprobs = result["logprobs"].as_array().expect("the result has log-probabilities");
    logprobs.iter().map(|x| (x.as_f64().expect("a number") as f32).to_bits()).collect()
}
