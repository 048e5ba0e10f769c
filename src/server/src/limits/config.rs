//! The server's configured limits.

use serde::{Deserialize, Serialize};

/// The server's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Bytes of one request's body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are being read or parsed, at least two of the greatest size; what does not fit beside them is
    /// answered 429.
    pub max_waiting_body_bytes: u32,
    /// Queries (or pairs) of one request.
    pub max_queries: usize,
    /// Requests in flight, those that are still being read among them; what is beyond is answered 429 unread.
    pub max_waiting_requests: u32,
    /// Tokens (BOS, context and target) of all requests in flight; what does not fit beside them is answered 429,
    /// and so is what would leave too little to other clients.
    pub max_waiting_tokens: u32,
    /// Seconds a request may take, from its first byte; then it is given up and answered 504.
    pub max_request_seconds: u64,
    /// Origins (`https://example.org`) whose pages may send requests from a browser, or `*` for all; by default none.
    pub cors_origins: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_waiting_body_bytes: 1 << 30,
            max_queries: 1 << 16,
            max_waiting_requests: 4096,
            max_waiting_tokens: 16 << 20,
            max_request_seconds: 3600,
            cors_origins: Vec::new(),
        }
    }
}

impl ServerConfig {
    /// Returns the limit on the bytes of all bodies together: at least two bodies of the greatest size, so that a body alone
    /// is always read to its end, as its client may take half of what is free.
    pub(crate) fn body_bytes_limit(&self) -> u32 {
        let two_bodies = u32::try_from(self.max_body_bytes).unwrap_or(u32::MAX).saturating_mul(2);
        self.max_waiting_body_bytes.max(two_bodies)
    }

    /// Returns the first of [`cors_origins`](Self::cors_origins) that no browser would send.
    pub fn invalid_origin(&self) -> Option<&str> {
        let is_origin = |origin: &str| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| {
                !host.is_empty()
                    && host.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'/' | b'?' | b'#' | b'@'))
            })
        };
        self.cors_origins.iter().map(String::as_str).find(|&origin| origin != "*" && !is_origin(origin))
    }
}
