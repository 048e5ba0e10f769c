//! Options of an HTTP source: limits, retries, dialect, API key.

use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderValue;

use crate::error::Error;
use crate::source::dialect::ScoringDialect;
use crate::source::retry::RetryPolicy;

/// Options of an HTTP source.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Maximum requests in flight at once.
    pub concurrency: usize,
    /// Maximum queries in one request.
    pub queries_per_request: usize,
    /// Maximum tokens (BOS, context and target) in one request, unless a single query has more.
    pub tokens_per_request: usize,
    /// Timeout of a request.
    pub timeout: Duration,
    /// Policy for failed requests.
    pub retry: RetryPolicy,
    /// Dialect of the requests.
    pub api: ScoringDialect,
    /// Name of the model; `None` for the first model in the server's list.
    pub model: Option<String>,
    /// Id of the BOS token to put before every sequence; `None` to leave BOS to the server. A surprisal server adds the
    /// model's BOS; other servers never add BOS to token ids.
    pub bos: Option<u32>,
    /// API key, sent as a bearer token.
    pub api_key: Option<ApiKey>,
}

impl HttpOptions {
    /// Checks that no limit is zero.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (field, value) in [
            ("concurrency", self.concurrency),
            ("queries_per_request", self.queries_per_request),
            ("tokens_per_request", self.tokens_per_request),
        ] {
            if value == 0 {
                return Err(Error::invalid(field, value, "at least 1"));
            }
        }
        Ok(())
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            concurrency: 8,
            queries_per_request: 64,
            tokens_per_request: 32 * 1024,
            // The default deadline of a surprisal server. On a slow server, the last of eight requests waits for the
            // other seven.
            timeout: Duration::from_secs(3600),
            retry: RetryPolicy::default(),
            api: ScoringDialect::default(),
            model: None,
            bos: None,
            api_key: None,
        }
    }
}

/// An API key. Debug output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps a key.
    pub fn new(key: String) -> Self {
        Self(key)
    }

    /// Reads the key from an environment variable; `None` if the variable is unset or empty.
    pub fn from_env(variable: &str) -> Option<Self> {
        std::env::var(variable).ok().filter(|key| !key.is_empty()).map(Self)
    }

    /// Returns the value of the `Authorization` header, marked as sensitive so that logs do not show it.
    pub(crate) fn header(&self) -> Result<HeaderValue, Error> {
        let value = HeaderValue::try_from(format!("Bearer {}", self.0));
        let mut value = value.map_err(|_| Error::invalid("API key", "invalid (not shown)", "visible ASCII"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(...)")
    }
}
