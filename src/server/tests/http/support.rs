//! A server on a free port, with a scorer and a codec that a test can see through.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;
use surprisal_api::TokenizerInfo;
use surprisal_engine::{
    FinishReason, GeneratedToken, Generation, ModelCard, PositionDetails, PositionOptions, Query, QueryEvent,
    QueryEvents, ScoreError, ScoreFuture, Scorer, Scores, Stats,
};
use surprisal_server::{ApiKeys, App, ServerConfig, TextCodec, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) const BOS: u32 = 256;
pub(crate) const VOCABULARY: usize = 260;
pub(crate) const MAX_LENGTH: usize = 64;

/// Targets with these tokens go wrong.
pub(crate) const FAILS: u32 = 250;
pub(crate) const STOPS: u32 = 251;
pub(crate) const PANICS: u32 = 252;
pub(crate) const INFINITE: u32 = 253;

/// What the scorer says of a token after another: exact in f32.
pub(crate) fn logprob(before: u32, token: u32) -> f32 {
    -((before + 2 * token + 1) as f32) / 1024.0
}

/// What the scorer draws after a token: the next letter, and after Z an é, which is two tokens.
pub(crate) fn next(before: u32) -> u32 {
    match before {
        90 => 0xc3,
        0xc3 => 0xa9,
        0xa9 => 97,
        _ => before + 1,
    }
}

/// What else it says of a token's place: the smaller a token, the more probable.
pub(crate) fn position(before: u32, token: u32, extras: &PositionOptions) -> PositionDetails {
    PositionDetails {
        rank: extras.rank.then_some(token + 1),
        entropy: extras.entropy.then(|| (before + token) as f32 / 256.0),
        subset: extras.subset.as_ref().map(|subset| -(subset.ids().map(|id| before + id).sum::<u32>() as f32) / 1024.0),
        top: (0..extras.top.into()).map(|token| (token, logprob(before, token))).collect(),
    }
}

/// Answers while its gate is open.
pub(crate) struct Letters {
    card: ModelCard,
    gate: watch::Sender<bool>,
    pub(crate) alive: AtomicBool,
    counts: Arc<Counts>,
    /// Of the continuations that were asked for.
    pub(crate) seeds: Mutex<Vec<u64>>,
}

#[derive(Default)]
pub(crate) struct Counts {
    running: AtomicU64,
    finished: AtomicU64,
    cancelled: AtomicU64,
}

/// A query in flight; cancelled if dropped before it is finished.
struct Ticket {
    counts: Arc<Counts>,
    finished: bool,
}

impl Ticket {
    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.counts.running.fetch_sub(1, Ordering::SeqCst);
        let ended = if self.finished { &self.counts.finished } else { &self.counts.cancelled };
        ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Letters {
    pub(crate) fn new() -> Self {
        let card = ModelCard {
            id: "letters".to_owned(),
            fingerprint: "letters-1".to_owned(),
            vocab_size: VOCABULARY,
            max_length: MAX_LENGTH,
            device: "test".to_owned(),
        };
        Self {
            card,
            gate: watch::Sender::new(true),
            alive: true.into(),
            counts: Arc::default(),
            seeds: Mutex::default(),
        }
    }

    pub(crate) fn open(&self, open: bool) {
        self.gate.send_replace(open);
    }
}

fn answer(Query { tokens, score_from, options: extras, .. }: &Query) -> Result<Scores, ScoreError> {
    for token in &tokens[*score_from..] {
        match *token {
            FAILS => return Err(ScoreError::Backend("out of memory".to_owned())),
            STOPS => return Err(ScoreError::Stopped),
            PANICS => panic!("a scorer's defect"),
            _ => {}
        }
    }
    let one = |at: usize| match tokens[at] {
        INFINITE => f32::NEG_INFINITY,
        token => logprob(tokens[at - 1], token),
    };
    let cached_tokens = score_from - 1;
    let positions = (*score_from..tokens.len()).filter(|_| !extras.is_empty());
    let positions = positions.map(|at| position(tokens[at - 1], tokens[at], extras)).collect();
    let logprobs = (*score_from..tokens.len()).map(one).collect();
    let computed_tokens = tokens.len() - cached_tokens;
    Ok(Scores { logprobs, positions, cached_tokens, computed_tokens, ..Scores::default() })
}

/// Tells of a query and its continuation as they become known.
async fn write(query: Query, generation: Generation, told: &mpsc::Sender<Result<QueryEvent, ScoreError>>) {
    let scores = answer(&query);
    let failed = scores.is_err();
    let _ = told.send(scores.map(QueryEvent::Scores)).await;
    let mut before = *query.tokens.last().unwrap();
    for left in (0..generation.max_tokens).rev().filter(|_| !failed) {
        let id = next(before);
        let finish = if generation.stop.contains(&id) {
            Some(FinishReason::Stop)
        } else {
            (left == 0).then_some(FinishReason::Length)
        };
        let position = position(before, id, &generation.options);
        let token = GeneratedToken { id, logprob: logprob(before, id), position, finish_reason: finish };
        if told.send(Ok(QueryEvent::Token(token))).await.is_err() || finish.is_some() {
            return;
        }
        before = id;
        tokio::task::yield_now().await;
    }
}

impl Scorer for Letters {
    fn generate(&self, query: Query, generation: Generation) -> QueryEvents {
        self.seeds.lock().unwrap().push(generation.sampling.seed);
        self.counts.running.fetch_add(1, Ordering::SeqCst);
        let ticket = Ticket { counts: self.counts.clone(), finished: false };
        let mut gate = self.gate.subscribe();
        let (told, events) = mpsc::channel(1);
        tokio::spawn(async move {
            tokio::select! {
                () = told.closed() => return,
                _ = gate.wait_for(|&open| open) => {}
            }
            write(query, generation, &told).await;
            if !told.is_closed() {
                ticket.finish();
            }
        });
        events
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    fn score(&self, query: Query) -> ScoreFuture<'_> {
        self.counts.running.fetch_add(1, Ordering::SeqCst);
        let ticket = Ticket { counts: self.counts.clone(), finished: false };
        let mut gate = self.gate.subscribe();
        Box::pin(async move {
            gate.wait_for(|&open| open).await.map_err(|_| ScoreError::Stopped)?;
            ticket.finish();
            answer(&query)
        })
    }

    fn describe(&self) -> &ModelCard {
        &self.card
    }

    fn stats(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Stats {
            running_queries: read(&self.counts.running),
            finished_queries: read(&self.counts.finished),
            cancelled_queries: read(&self.counts.cancelled),
            computed_tokens: 300,
            cached_tokens: 100,
            total_blocks: 8,
            active_blocks: 2,
            ..Stats::default()
        }
    }
}

/// A byte is a token; NUL has no encoding. Texts may begin with BOS.
pub(crate) struct Bytes(pub(crate) Option<u32>);

/// The same, with a space before every text.
pub(crate) struct Spaced;

impl TextCodec for Spaced {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Bytes(None).encode(&format!(" {text}"))
    }

    /// The space and what follows it are the first character's bytes.
    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String> {
        let offsets = (0..=text.len()).map(|at| [at.saturating_sub(1), at.max(1)]).collect();
        Ok((self.encode(text)?, offsets))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        Bytes(None).decode(tokens)
    }

    fn adds_space(&self) -> bool {
        true
    }

    fn bos(&self) -> Option<u32> {
        None
    }

    fn info(&self) -> TokenizerInfo {
        Bytes(None).info()
    }
}

impl TextCodec for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        if text.contains('\0') {
            return Err("NUL has no encoding".to_owned());
        }
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String> {
        Ok((self.encode(text)?, (0..text.len()).map(|at| [at, at + 1]).collect()))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        let byte = |&token: &u32| u8::try_from(token).map_err(|_| format!("{token} is not a byte"));
        let bytes = tokens.iter().map(byte).collect::<Result<_, _>>()?;
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }

    fn text(&self, tokens: &[u32]) -> Result<String, String> {
        let bytes: Vec<u8> = tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn bos(&self) -> Option<u32> {
        self.0
    }

    fn info(&self) -> TokenizerInfo {
        let bos_token = self.0.map(|_| "<s>".to_owned());
        TokenizerInfo { bos_token, bos_token_id: self.0, add_bos_token: self.0.is_some(), ..TokenizerInfo::default() }
    }
}

/// A running server.
pub(crate) struct Server<S = Letters> {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) scorer: Arc<S>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<io::Result<()>>,
}

/// A response, read.
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

    /// The problem, if that is what it is: its media type, its status, and its type's last part.
    pub(crate) fn problem(&self) -> (u16, String, Value) {
        let problem = self.json();
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        assert_eq!(problem["status"], self.status, "{self:?}");
        for words in ["title", "detail"] {
            assert!(problem[words].as_str().is_some_and(|words| !words.is_empty()), "{self:?}");
        }
        let name = problem["type"].as_str().unwrap().strip_prefix("urn:surprisal:problem:").unwrap().to_owned();
        (self.status, name, problem)
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(ServerConfig::default(), Some(BOS)).await
    }

    pub(crate) async fn with(config: ServerConfig, bos: Option<u32>) -> Self {
        Self::run(config, bos, ApiKeys::default()).await
    }

    pub(crate) async fn with_keys(keys: ApiKeys) -> Self {
        Self::run(ServerConfig::default(), Some(BOS), keys).await
    }

    async fn run(config: ServerConfig, bos: Option<u32>, keys: ApiKeys) -> Self {
        Self::serve(Arc::new(Letters::new()), config, bos, keys).await
    }
}

impl<S: Scorer> Server<S> {
    /// Serves any scorer; a byte is a token.
    pub(crate) async fn serve(scorer: Arc<S>, config: ServerConfig, bos: Option<u32>, keys: ApiKeys) -> Self {
        Self::speak(scorer, Arc::new(Bytes(bos)), config, keys).await
    }

    /// Serves any scorer and any codec.
    pub(crate) async fn speak(scorer: Arc<S>, codec: Arc<dyn TextCodec>, config: ServerConfig, keys: ApiKeys) -> Self {
        let app = App::new(scorer.clone(), codec, config).with_api_keys(keys);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(serve(listener, app, async move { stopped.await.unwrap_or_default() }));
        // A second installation fails, and the first one stays: either way there is one.
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

    /// Sends all of a request before it reads the answer, as simple clients do; the status, and the answer whole.
    pub(crate) async fn push(&self, content_type: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {content_type}");
        let head = format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// Asks without waiting for the answer.
    pub(crate) fn ask(&self, body: &Value) -> JoinHandle<Reply> {
        let request = self.client.post(format!("{}/logprobs", self.url)).json(body);
        tokio::spawn(async move { Reply::read(request.send().await.unwrap()).await })
    }

    /// The value of a metric without labels, or with them as they are written.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until so many queries are in flight.
    pub(crate) async fn until_running(&self, queries: u64) {
        until(async || self.scorer.stats().running_queries == queries).await;
    }

    /// Tells the server to stop; the handle completes when it has.
    pub(crate) fn stop(self) -> JoinHandle<io::Result<()>> {
        self.stop.send(()).unwrap();
        self.running
    }
}

/// Waits for a condition that must come true.
pub(crate) async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the condition comes true");
}
