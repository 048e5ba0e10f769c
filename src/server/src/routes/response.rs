//! Helpers shared by the responses of several routes.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::problem::{self, Failure};

/// vLLM's stand-in for minus infinity, which JSON cannot express.
pub(super) const LOWEST_LOGPROB: f32 = -9999.0;

/// Writes a JSON response where it is called: off the reactor if that is where it runs.
pub(super) fn json(answer: &impl Serialize) -> Result<Response, Failure> {
    let bytes = serde_json::to_vec(answer).map_err(problem::serialization_failed)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// Returns true if the client names this media type among those it accepts.
pub(super) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let essence = range.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(media)
    })
}
