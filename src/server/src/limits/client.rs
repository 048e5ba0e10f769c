//! Identification of clients, which take turns in the engine and share the server's limits.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName};
use surprisal_engine::{CacheNamespace, SchedulingParams};

use crate::limits::config::ServerConfig;
use crate::problem::{self, Failure};

/// The header that names the client of a request without an API key.
pub(crate) const CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");

/// An accepted API key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApiKey {
    pub(crate) hash: blake3::Hash,
    /// The smallest priority that the key's client may use; `None` for the server's setting.
    pub(crate) min_priority: Option<i32>,
}

/// The client that sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    number: u64,
    named: bool,
    min_priority: i32,
    namespace: CacheNamespace,
}

impl Client {
    /// Identifies the client by its API key, or else by the header `X-Client-Id`. A request with neither is scheduled
    /// as a separate client, but shares one account with all other such requests.
    pub(crate) fn identify(key: Option<&ApiKey>, headers: &HeaderMap, config: &ServerConfig) -> Self {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let hash_of_name = || headers.get(CLIENT_ID).map(|name| blake3::hash(name.as_bytes()));
        let (number, named) = match key.map(|key| key.hash).or_else(hash_of_name) {
            Some(hash) => {
                let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
                (u64::from_le_bytes(*first), true)
            }
            None => (REQUESTS.fetch_add(1, Ordering::Relaxed), false),
        };
        let shared = CacheNamespace::default();
        // Anyone may send any `X-Client-Id`, so it separates nothing.
        let namespace = match key {
            Some(key) if !config.share_cache => shared.salted(key.hash.as_bytes()),
            _ => shared,
        };
        let min_priority = key.and_then(|key| key.min_priority).unwrap_or(config.min_priority);
        Self { number, named, min_priority, namespace }
    }

    /// Returns the parameters by which the engine orders the client's requests. Rejects a priority below the client's
    /// limit.
    pub(crate) fn scheduling(self, priority: i32) -> Result<SchedulingParams, Failure> {
        if priority < self.min_priority {
            return Err(problem::priority_not_permitted(priority, "at least", self.min_priority));
        }
        Ok(SchedulingParams { priority, client: self.number })
    }

    /// Returns the same as [`scheduling`](Self::scheduling) for a priority as in SGLang, where greater values run
    /// sooner.
    pub(crate) fn sglang_scheduling(self, priority: i32) -> Result<SchedulingParams, Failure> {
        let limit = self.min_priority.saturating_neg();
        if priority > limit {
            return Err(problem::priority_not_permitted(priority, "at most", limit));
        }
        Ok(SchedulingParams { priority: priority.saturating_neg(), client: self.number })
    }

    /// Returns the part of the prefix cache for the client's requests with this salt.
    pub(crate) fn namespace(self, cache_salt: Option<&str>) -> CacheNamespace {
        cache_salt.map_or(self.namespace, |salt| self.namespace.salted(salt.as_bytes()))
    }

    /// Returns the account under which the client's requests are counted.
    pub(crate) fn account(self) -> u64 {
        if self.named { self.number } else { 0 }
    }
}
