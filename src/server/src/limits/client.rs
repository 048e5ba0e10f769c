//! Identification of clients, which take turns in the engine and share the server's limits.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName};
use surprisal_engine::SchedulingParams;

/// The header that names the client of a request without an API key.
pub(crate) const CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");

/// The client that sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    number: u64,
    named: bool,
}

impl Client {
    /// Identifies the client by its API key, or else by the header `X-Client-Id`. A request with neither is scheduled
    /// as a separate client, but shares one account with all other such requests.
    pub(crate) fn identify(key: Option<&blake3::Hash>, headers: &HeaderMap) -> Self {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let hash_of_name = || headers.get(CLIENT_ID).map(|name| blake3::hash(name.as_bytes()));
        match key.copied().or_else(hash_of_name) {
            Some(hash) => {
                let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
                Self { number: u64::from_le_bytes(*first), named: true }
            }
            None => Self { number: REQUESTS.fetch_add(1, Ordering::Relaxed), named: false },
        }
    }

    /// Returns the parameters by which the engine orders the client's requests.
    pub(crate) fn scheduling(self, priority: i32) -> SchedulingParams {
        SchedulingParams { priority, client: self.number }
    }

    /// Returns the account under which the client's requests are counted.
    pub(crate) fn account(self) -> u64 {
        if self.named { self.number } else { 0 }
    }
}
