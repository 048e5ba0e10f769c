//! Helpers for the responses of several routes.

use std::hash::{BuildHasher, Hasher, RandomState};

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::problem::{self, Failure};

/// vLLM's substitute for minus infinity, which JSON cannot represent.
pub(super) const LOWEST_LOGPROB: f32 = -9999.0;

/// Writes a JSON response on the calling thread, so a large response must be written off the reactor.
pub(super) fn json(answer: &impl Serialize) -> Result<Response, Failure> {
    let bytes = serde_json::to_vec(answer).map_err(problem::serialization_failed)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// Returns `true` if the `Accept` headers list this media type.
pub(super) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let essence = range.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(media)
    })
}

/// Returns an identifier that no other response has.
pub(super) fn random_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}
