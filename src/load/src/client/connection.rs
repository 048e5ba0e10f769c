//! A persistent HTTP/1.1 connection to a server.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::endpoint::Endpoint;
use crate::error::Error;

/// Maximum size of a response to a GET request, in bytes: a list of models, or metrics.
const MAX_INFO_BYTES: usize = 16 << 20;

/// Maximum length of an error response's body in an error message, in characters.
const MAX_SHOWN_CHARS: usize = 300;

/// A server's response to one request.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The delay in `Retry-After`, if the response has one in seconds.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

/// The reason why a request has no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("connection broken: {0}")]
    Broken(#[from] hyper::Error),
    #[error("no response within {0:?}")]
    Timeout(Duration),
    #[error("the response is longer than {0} bytes, the most that a response to this request can have")]
    TooLong(usize),
}

/// A request, and the most that its response may have, in bytes.
#[derive(Clone, Debug)]
struct Outgoing<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    max_response_bytes: usize,
}

/// A connection that opens on first use, and reopens after it breaks.
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

    /// Sends `GET path`.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Response, ExchangeError> {
        let max_response_bytes = MAX_INFO_BYTES;
        self.exchange(Outgoing { method: Method::GET, path, body: Bytes::new(), max_response_bytes }).await
    }

    /// Sends `POST path` with a JSON body.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: Bytes,
        max_response_bytes: usize,
    ) -> Result<Response, ExchangeError> {
        self.exchange(Outgoing { method: Method::POST, path, body, max_response_bytes }).await
    }

    /// Sends a request and waits for its response, up to the timeout. A failure closes the connection.
    async fn exchange(&mut self, outgoing: Outgoing<'_>) -> Result<Response, ExchangeError> {
        let timeout = self.timeout;
        let response = tokio::time::timeout(timeout, self.exchange_or_reconnect(outgoing)).await;
        let response = response.unwrap_or(Err(ExchangeError::Timeout(timeout)));
        if response.is_err() {
            self.sender = None;
        }
        response
    }

    /// Sends a request. If the server closed a reused connection before the request was sent, tries again over a new
    /// connection.
    async fn exchange_or_reconnect(&mut self, outgoing: Outgoing<'_>) -> Result<Response, ExchangeError> {
        let reused = self.sender.is_some();
        match self.exchange_once(outgoing.clone()).await {
            Err(ExchangeError::Broken(error)) if reused && (error.is_canceled() || error.is_closed()) => {
                self.sender = None;
                self.exchange_once(outgoing).await
            }
            response => response,
        }
    }

    async fn exchange_once(&mut self, outgoing: Outgoing<'_>) -> Result<Response, ExchangeError> {
        let Outgoing { method, path, body, max_response_bytes } = outgoing;
        let request = self.request(method, path, body)?;
        let sender = self.connected_sender().await?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = read_up_to(max_response_bytes, response.into_body()).await?;
        Ok(Response { status, retry_after: seconds.map(Duration::from_secs), body })
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, ExchangeError> {
        let invalid =
            |reason: &'static str| ExchangeError::Connect(io::Error::new(io::ErrorKind::InvalidInput, reason));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.endpoint.full_path(path).parse().map_err(|_| invalid("invalid URL path"))?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.endpoint.host().parse().map_err(|_| invalid("invalid host"))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            let value = authorization.parse().map_err(|_| invalid("the API key must be visible ASCII"))?;
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// Returns the sender of the open connection; opens a connection if there is none.
    async fn connected_sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, ExchangeError> {
        if let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) {
            return Ok(self.sender.insert(sender));
        }
        let host = self.endpoint.host();
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        let stream = TcpStream::connect(address).await.map_err(ExchangeError::Connect)?;
        stream.set_nodelay(true).map_err(ExchangeError::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        // The task ends when the sender is dropped. If the connection breaks, pending callers get the error.
        tokio::spawn(driver);
        Ok(self.sender.insert(sender))
    }
}

/// Reads a whole body, which may have at most `limit` bytes.
async fn read_up_to(limit: usize, body: Incoming) -> Result<Bytes, ExchangeError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast::<hyper::Error>() {
        Ok(error) => ExchangeError::Broken(*error),
        Err(error) if error.is::<LengthLimitError>() => ExchangeError::TooLong(limit),
        Err(error) => ExchangeError::Connect(io::Error::other(error)),
    };
    Ok(Limited::new(body, limit).collect().await.map_err(failed)?.to_bytes())
}

/// Returns a response with status 200; anything else is an error.
pub(crate) fn expect_success(url: &str, response: Result<Response, ExchangeError>) -> Result<Response, Error> {
    let response = response.map_err(|error| match error {
        ExchangeError::TooLong(_) => Error::Answer { url: url.to_owned(), reason: error.to_string() },
        error => Error::Unreachable { url: url.to_owned(), reason: error.to_string() },
    })?;
    if response.status == 200 {
        return Ok(response);
    }
    let body: String = String::from_utf8_lossy(&response.body).chars().take(MAX_SHOWN_CHARS).collect();
    Err(Error::Status { url: url.to_owned(), status: response.status, body })
}
