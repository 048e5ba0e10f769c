//! One connection to a server, kept alive, over HTTP/1.1.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{Api, Error};

/// A server's address and the API it is asked in: `[API+]http://HOST[:PORT][/BASE]`.
///
/// ```
/// use surprisal_load::{Api, Endpoint};
///
/// let peer: Endpoint = "vllm+http://10.0.0.7:8000".parse()?;
/// assert_eq!(peer.api(), Api::Vllm);
/// assert_eq!(peer.to_string(), "vllm+http://10.0.0.7:8000");
/// assert_eq!("http://localhost".parse::<Endpoint>()?.api(), Api::Surprisal);
/// assert!("https://localhost".parse::<Endpoint>().is_err());
/// # Ok::<(), surprisal_load::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    api: Api,
    host: String,
    /// What goes before every path.
    base: String,
}

impl Endpoint {
    /// In which dialect the server is asked.
    pub fn api(&self) -> Api {
        self.api
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.host, self.base)
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let expected = || {
            let apis: Vec<&str> = Api::ALL.iter().map(|api| api.name()).collect();
            let apis = apis.join(", ");
            Error::invalid("url", text, format!("[API+]http://HOST[:PORT] (no TLS), API one of {apis}"))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
        let (api, scheme) = scheme.split_once('+').unwrap_or((Api::Surprisal.name(), scheme));
        let api = Api::ALL.into_iter().find(|one| one.name() == api).ok_or_else(expected)?;
        let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if scheme != "http" || authority.parse::<hyper::http::uri::Authority>().is_err() || authority.contains('@') {
            return Err(expected());
        }
        Ok(Self { api, host: authority.to_owned(), base: base.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.api != Api::Surprisal {
            write!(f, "{}+", self.api.name())?;
        }
        f.write_str(&self.url(""))
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// How long the server asks to wait.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// A connection that is made when it is needed, and again after it broke.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoint: Endpoint,
    authorization: Option<String>,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(endpoint: Endpoint, key: Option<&str>, timeout: Duration) -> Self {
        Self { endpoint, authorization: key.map(|key| format!("Bearer {key}")), timeout, sender: None }
    }

    /// `GET path`.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Reply, Trouble> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// `POST path` with a JSON body.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Reply, Trouble> {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Reply, Trouble> {
        let timeout = self.timeout;
        let asked = tokio::time::timeout(timeout, self.ask_patiently(method, path, body)).await;
        let asked = asked.unwrap_or(Err(Trouble::Timeout(timeout)));
        if asked.is_err() {
            self.sender = None;
        }
        asked
    }

    /// Once more over a new connection, if the kept one was closed before anything was sent.
    async fn ask_patiently(&mut self, method: Method, path: &str, body: Bytes) -> Result<Reply, Trouble> {
        let kept = self.sender.is_some();
        match self.ask_once(method.clone(), path, body.clone()).await {
            Err(Trouble::Broken(error)) if kept && (error.is_canceled() || error.is_closed()) => {
                self.sender = None;
                self.ask_once(method, path, body).await
            }
            asked => asked,
        }
    }

    async fn ask_once(&mut self, method: Method, path: &str, body: Bytes) -> Result<Reply, Trouble> {
        let mut request = Request::new(Full::new(body));
        let io = |reason: &'static str| Trouble::Connect(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason));
        *request.method_mut() = method;
        *request.uri_mut() =
            format!("{}{path}", self.endpoint.base).parse().map_err(|_| io("the path is no path of a URL"))?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.endpoint.host.parse().map_err(|_| io("the host is no host"))?);
        headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            let value = authorization.parse().map_err(|_| io("the API key has characters no header may have"))?;
            headers.insert(AUTHORIZATION, value);
        }
        let sender = self.connected().await?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Reply { status, retry_after: asked.map(Duration::from_secs), body })
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Trouble> {
        if let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) {
            return Ok(self.sender.insert(sender));
        }
        let host = &self.endpoint.host;
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.clone() } else { format!("{host}:80") };
        let stream = TcpStream::connect(address).await.map_err(Trouble::Connect)?;
        stream.set_nodelay(true).map_err(Trouble::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; what breaks it is told to whoever waits for an answer.
        tokio::spawn(driver);
        Ok(self.sender.insert(sender))
    }
}
