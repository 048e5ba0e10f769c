//! The server's configured limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The minimum of [`ServerConfig::max_working_bytes`].
const MIN_WORKING_BYTES: usize = 16 << 20;

/// The minimum of [`ServerConfig::max_waiting_response_bytes`].
const MIN_RESPONSE_BYTES: u32 = 1 << 20;

/// The divisor of a limit for the part that no single request may take: one sixteenth.
const RESERVE_DIVISOR: u32 = 16;

/// The server's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Maximum size of one request's body, in bytes.
    pub max_body_bytes: usize,
    /// Maximum total size of all bodies that are being read or parsed, in bytes, with the memory of their decoders. The
    /// effective limit is at least four times `max_body_bytes`. A body that does not fit gets a 429 response.
    pub max_waiting_body_bytes: u32,
    /// Maximum estimated memory for parsing and tokenizing requests and writing responses, in bytes; at least 16 MiB.
    /// Further jobs wait for their turn. A text or a body that would need more by itself gets a 413 response. Any other
    /// job that needs more runs alone, except for small jobs.
    pub max_working_bytes: usize,
    /// Maximum memory of all responses that are being written, or that wait for their clients to read them, in bytes;
    /// at least 1 MiB. Compressors have a second limit of the same size. Responses wait until they fit; those of
    /// `/tokenize` and `/detokenize` become a 429 response instead. A result that needs more than a quarter of the
    /// limit counts as a quarter, so at most four such results exist at a time.
    pub max_waiting_response_bytes: u32,
    /// Maximum number of queries or pairs in one request.
    pub max_queries: usize,
    /// Maximum number of requests in flight, including those that are being read. Further requests get a 429
    /// response before the server reads them.
    pub max_waiting_requests: u32,
    /// Maximum number of tokens of all requests in flight: the tokens of their sequences, the tokens to generate, and
    /// one token per alternative. Tokens count until the response is written. A request that does not fit, or that
    /// would leave too little capacity for other clients, gets a 429 response. A single request may take at most 15/16
    /// of the limit; a larger one gets a 413 response.
    pub max_waiting_tokens: u32,
    /// Maximum number of queries of all requests in flight: the queries or pairs of `/logprobs`, and the completions of
    /// prompts. A request has at most 2,048 of them in the engine at once, where each takes about 1 KiB of memory
    /// besides its tokens; the others take about 100 bytes each. The effective limit is at least 16/15 of
    /// `max_queries`. A request that does not fit, or that would leave too little capacity for other clients, gets a
    /// 429 response.
    pub max_waiting_queries: u32,
    /// Smallest `priority` that clients may send, unless their API key has a smaller one. More urgent requests get a
    /// 400 response.
    pub min_priority: i32,
    /// `true` to share the prefix cache among API keys. By default, requests with different keys share no cached
    /// prefixes, so that no client can learn what others asked.
    pub share_cache: bool,
    /// Deadline of a request, in seconds. A request that takes longer is cancelled and gets a 504 response.
    pub max_request_seconds: u64,
    /// Maximum number of connections. The effective limit is lower if the process may not open that many files. At the
    /// limit, the server closes idle connections, or rejects the new one.
    pub max_connections: u32,
    /// Time for a request's head, from its first byte, and for a TLS handshake, in seconds. The server closes a
    /// connection that takes longer.
    pub head_seconds: u64,
    /// Time to the next request on a connection, in seconds. The server closes a connection that waits longer.
    pub idle_seconds: u64,
    /// Time over which the rate of a transfer is measured, in seconds: see
    /// [`min_bytes_per_second`](Self::min_bytes_per_second).
    pub stall_seconds: u64,
    /// Minimum rate at which a client must send its body and read its response, in bytes per second. A body that is
    /// slower for `stall_seconds` gets a 408 response. The server closes the connection of a client that reads nothing
    /// of a response for `stall_seconds`, or for the time that 128 KiB take at this rate if that is longer, because the
    /// kernel takes a response in steps of up to 128 KiB.
    pub min_bytes_per_second: u64,
    /// Time that requests in flight have to finish at shutdown, in seconds. Later ones are dropped.
    pub drain_seconds: u64,
    /// Origins (`https://example.org`) whose pages may send requests from a browser, or `*` for all. Default: none.
    pub cors_origins: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_waiting_body_bytes: 1 << 30,
            max_working_bytes: 2 << 30,
            max_waiting_response_bytes: 256 << 20,
            max_queries: 1 << 16,
            max_waiting_requests: 4096,
            max_waiting_tokens: 16 << 20,
            max_waiting_queries: 1 << 18,
            min_priority: 0,
            share_cache: false,
            max_request_seconds: 3600,
            max_connections: 8192,
            head_seconds: 10,
            idle_seconds: 75,
            stall_seconds: 30,
            min_bytes_per_second: 4096,
            drain_seconds: 3600,
            cors_origins: Vec::new(),
        }
    }
}

/// Returns a setting as a duration, limited to a year: a longer one could overflow when it is added to a time.
fn duration(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(365 * 24 * 3600))
}

/// Returns the greatest amount that a single request may take of a limit: so much that the reserve remains for others.
pub(crate) fn max_request(limit: u32) -> u32 {
    limit - limit / RESERVE_DIVISOR
}

/// Returns a limit of which a single request may take this amount.
fn limit_for_request(amount: u32) -> u32 {
    amount.saturating_add(amount.div_ceil(RESERVE_DIVISOR - 1))
}

impl ServerConfig {
    pub(crate) fn head_timeout(&self) -> Duration {
        duration(self.head_seconds)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        duration(self.idle_seconds)
    }

    pub(crate) fn stall_window(&self) -> Duration {
        duration(self.stall_seconds)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        duration(self.max_request_seconds)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        duration(self.drain_seconds)
    }

    /// Returns the limit on the total size of all bodies, in bytes. It is at least four times the maximum size of a
    /// body: a client may hold at most twice the free bytes, so a lower limit could reject the second of two bodies.
    pub(crate) fn body_bytes_limit(&self) -> u32 {
        let four_bodies = u32::try_from(self.max_body_bytes).unwrap_or(u32::MAX).saturating_mul(4);
        self.max_waiting_body_bytes.max(four_bodies)
    }

    /// Returns the limit on the memory of responses, in bytes.
    pub(crate) fn response_bytes_limit(&self) -> u32 {
        self.max_waiting_response_bytes.max(MIN_RESPONSE_BYTES)
    }

    /// Returns the limit on the memory for parsing and tokenizing requests, in bytes.
    pub(crate) fn working_bytes_limit(&self) -> usize {
        self.max_working_bytes.max(MIN_WORKING_BYTES)
    }

    /// Returns the limit on the number of all queries. It is large enough that an idle server can admit a request with
    /// the maximum number of queries.
    pub(crate) fn queries_limit(&self) -> u32 {
        self.max_waiting_queries.max(limit_for_request(u32::try_from(self.max_queries).unwrap_or(u32::MAX)))
    }

    /// Returns the first entry of [`cors_origins`](Self::cors_origins) that no browser would send as an origin; `None`
    /// if all entries are valid.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_for_a_request_is_as_small_as_possible() {
        for amount in 1..10_000 {
            let limit = limit_for_request(amount);
            assert!((amount..=amount + 1).contains(&max_request(limit)), "{amount}: {limit}");
        }
    }
}
