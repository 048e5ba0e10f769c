//! Who asks: clients take turns, and this says which requests are one client's.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName};
use surprisal_engine::Turn;

/// The header by which those who have no key may say that their requests are one client's.
pub(crate) const CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");

/// A client, by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client(u64);

impl Client {
    /// By the API key, or else by the header `X-Client-Id`; whoever has neither is a client of its own in each request.
    pub(crate) fn of(key: Option<&blake3::Hash>, headers: &HeaderMap) -> Self {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let named = || headers.get(CLIENT_ID).map(|name| blake3::hash(name.as_bytes()));
        let number = |hash: blake3::Hash| {
            let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
            u64::from_le_bytes(*first)
        };
        Self(match key.copied().or_else(named) {
            Some(hash) => number(hash),
            None => REQUESTS.fetch_add(1, Ordering::Relaxed),
        })
    }

    pub(crate) fn turn(self, priority: i32) -> Turn {
        Turn { priority, client: self.0 }
    }
}
