//! Who asks: clients take turns, and this says which requests are one client's.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName};
use surprisal_engine::SchedulingParams;

/// The header by which those who have no key may say that their requests are one client's.
pub(crate) const CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    number: u64,
    named: bool,
}

impl Client {
    /// By the API key, or else by the header `X-Client-Id`. Whoever has neither takes turns as a client of its own in each
    /// request, but shares one account of the room with all such.
    pub(crate) fn of(key: Option<&blake3::Hash>, headers: &HeaderMap) -> Self {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let named = || headers.get(CLIENT_ID).map(|name| blake3::hash(name.as_bytes()));
        let number = |hash: blake3::Hash| {
            let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
            u64::from_le_bytes(*first)
        };
        match key.copied().or_else(named) {
            Some(hash) => Self { number: number(hash), named: true },
            None => Self { number: REQUESTS.fetch_add(1, Ordering::Relaxed), named: false },
        }
    }

    pub(crate) fn turn(self, priority: i32) -> SchedulingParams {
        SchedulingParams { priority, client: self.number }
    }

    /// Whose room its requests take.
    pub(crate) fn account(self) -> u64 {
        if self.named { self.number } else { 0 }
    }
}
