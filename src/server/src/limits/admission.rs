//! Admission: limits on the requests, body bytes, queries, tokens and response bytes in flight, shared fairly among
//! clients.
//!
//! A request is counted before its body is read. The bytes of its body count from their arrival until they are parsed.
//! Its queries and tokens count from the time they are known until the response is written, and the bytes of the
//! response from the time they are written until they are sent.
//!
//! Clients share each limit by the rule of `shared_limit`.

use std::sync::Arc;
use std::time::Instant;

use super::config::{ServerConfig, max_request};
use super::pressure::Pressure;
pub(crate) use super::shared_limit::Permit;
use super::shared_limit::{Exceeded, SharedLimit};
use crate::problem::{self, Failure};

/// The limits on requests, body bytes, queries, tokens and response bytes in flight. Clones share the counts.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    requests: SharedLimit,
    body_bytes: SharedLimit,
    tokens: SharedLimit,
    response_bytes: SharedLimit,
    compressors: SharedLimit,
    queries: SharedLimit,
    pressure: Arc<Pressure>,
}

/// The permit for the bytes of a response that is sent at once. The response carries it as an extension, and its
/// connection holds it until the socket has taken the response, compressed or not.
#[derive(Clone, Debug)]
pub(crate) struct ResponsePermit {
    _permit: Arc<Permit>,
}

/// The capacity that a request's work holds until the permit is dropped.
#[derive(Debug)]
pub(crate) struct WorkPermit {
    _queries: Permit,
    _tokens: Permit,
}

impl Admission {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            requests: SharedLimit::new("requests", config.max_waiting_requests),
            body_bytes: SharedLimit::new("body bytes", config.body_bytes_limit()),
            tokens: SharedLimit::new("tokens", config.max_waiting_tokens),
            response_bytes: SharedLimit::new("response bytes", config.response_bytes_limit()),
            compressors: SharedLimit::new("compressor bytes", config.response_bytes_limit()),
            queries: SharedLimit::new("queries", config.queries_limit()),
            pressure: Arc::new(Pressure::new(Instant::now())),
        }
    }

    /// Returns the number of requests in flight, including those whose bodies are being read.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.held()
    }

    /// Returns the number of bytes of the bodies that are being read or parsed.
    pub(crate) fn body_bytes(&self) -> u32 {
        self.body_bytes.held()
    }

    /// Returns the number of tokens in flight.
    pub(crate) fn tokens(&self) -> u32 {
        self.tokens.held()
    }

    /// Returns the number of bytes of the responses that are being written, or that wait for their clients to read
    /// them, with their compressors.
    pub(crate) fn response_bytes(&self) -> u32 {
        self.response_bytes.held().saturating_add(self.compressors.held())
    }

    /// Returns the number of queries in flight.
    pub(crate) fn queries(&self) -> u32 {
        self.queries.held()
    }

    /// Rejects a request with more tokens than a single request may take. Returns the number of tokens.
    pub(crate) fn check_tokens(&self, tokens: usize) -> Result<u32, Failure> {
        let limit = max_request(self.tokens.limit());
        match u32::try_from(tokens) {
            Ok(tokens) if tokens <= limit => Ok(tokens),
            _ => Err(problem::request_too_large(tokens, limit, self.tokens.limit())),
        }
    }

    /// Admits a client's request before its body is read.
    pub(crate) fn admit_request(&self, account: u64) -> Result<Permit, Failure> {
        let permit = self.requests.acquire(account, 1);
        permit.map_err(|exceeded| self.reject(&self.requests, exceeded))
    }

    /// Returns an empty permit for a client's body, to [grow](Self::grow_body) as the body arrives.
    pub(crate) fn body_permit(&self, account: u64) -> Permit {
        self.body_bytes.empty_permit(account)
    }

    /// Adds received bytes to a body's permit.
    pub(crate) fn grow_body(&self, body: &mut Permit, bytes: usize) -> Result<(), Failure> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.body_bytes.grow(body, bytes).map_err(|exceeded| self.reject(&self.body_bytes, exceeded))
    }

    /// Rejects a client that may not take a single token or query now.
    pub(crate) fn precheck(&self, account: u64) -> Result<(), Failure> {
        for limit in [&self.tokens, &self.queries] {
            limit.check(account, 1).map_err(|exceeded| self.reject(limit, exceeded))?;
        }
        Ok(())
    }

    /// Admits a client's queries and their tokens.
    pub(crate) fn admit_work(&self, account: u64, queries: usize, tokens: u32) -> Result<WorkPermit, Failure> {
        let count = u32::try_from(queries).unwrap_or(u32::MAX);
        let queries = self.queries.acquire(account, count).map_err(|exceeded| self.reject(&self.queries, exceeded))?;
        Ok(WorkPermit { _queries: queries, _tokens: self.admit_tokens(account, tokens)? })
    }

    /// Admits a client's tokens, or rejects them at once: there is no queue, so the client has to wait and retry.
    pub(crate) fn admit_tokens(&self, account: u64, tokens: u32) -> Result<Permit, Failure> {
        let permit = self.tokens.acquire(account, tokens).map_err(|exceeded| self.reject(&self.tokens, exceeded))?;
        self.pressure.record_admitted(Instant::now());
        Ok(permit)
    }

    /// Admits a client's whole response, or rejects it at once.
    pub(crate) fn admit_response(&self, account: u64, bytes: usize) -> Result<Permit, Failure> {
        let permit = self.response_bytes.acquire(account, self.response_amount(bytes));
        permit.map_err(|exceeded| self.reject(&self.response_bytes, exceeded))
    }

    /// Waits for capacity for the next part of a response that has begun. The server cannot reject it any more.
    pub(crate) async fn reserve_response(&self, account: u64, bytes: usize) -> Permit {
        self.response_bytes.wait(account, self.response_amount(bytes)).await
    }

    /// Waits for capacity for a compressor, which is held for a whole response. Compressors have a limit of their own:
    /// otherwise responses that hold compressors could wait for each other's parts.
    pub(crate) async fn reserve_compressor(&self, account: u64, bytes: usize) -> Permit {
        self.compressors.wait(account, self.response_amount(bytes)).await
    }

    /// Returns the amount that counts for a part of a response: at most a quarter of the limit, so that every part is
    /// written at some time.
    fn response_amount(&self, bytes: usize) -> u32 {
        self.response_bytes.capped_amount(bytes)
    }

    fn reject(&self, limit: &SharedLimit, exceeded: Exceeded) -> Failure {
        let (unit, limit) = (limit.unit(), limit.limit());
        let retry_after = self.pressure.record_rejected(Instant::now());
        match exceeded {
            Exceeded::Server { held } => problem::overloaded(held, limit, unit, retry_after),
            Exceeded::Client { held } => problem::overloaded_by_client(held, limit, unit, retry_after),
        }
    }
}

impl ResponsePermit {
    /// Creates the permit of a response with this number of bytes.
    pub(crate) fn new(mut permit: Permit, bytes: usize) -> Self {
        permit.resize(bytes);
        Self { _permit: Arc::new(permit) }
    }
}
