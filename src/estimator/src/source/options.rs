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
    /// Requests in flight at once.
    pub concurrency: usize,
    /// The most queries in one request.
    pub queries_per_request: usize,
    /// The most tokens (BOS, context and target) in one request, unless a single query has more.
    pub tokens_per_request: usize,
    /// The longest time that a request may take.
    pub timeout: Duration,
    /// When and for how long failed requests are sent again.
    pub retry: RetryPolicy,
    /// The dialect of the requests.
    pub api: ScoringDialect,
    /// The model, where a server has several.
    pub model: Option<String>,
    /// The token before every sequence. Servers other than ours add none to token ids; ours is told to add none where one is
    /// given.
    pub bos: Option<u32>,
    /// The API key, sent as a bearer token.
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
            // Our server's own deadline: on a slow one, the last of eight requests waits for seven.
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

    /// Reads the key from an environment variable; `None` if it is not set or empty.
    pub fn from_env(variable: &str) -> Option<Self> {
        std::env::var(variable).ok().filter(|key| !key.is_empty()).map(Self)
    }

    /// Returns the value of the `Authorization` header, marked so that no log shows it.
    pub(crate) fn header(&self) -> Result<HeaderValue, Error> {
        let value = HeaderValue::try_from(format!("Bearer {}", self.0));
        let mut value = value.map_err(|_| Error::invalid("API key", "not shown", "visible ASCII"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(...)")
    }
}
