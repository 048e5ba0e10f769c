//! Server-sent events, as OpenAI, vLLM and SGLang send them.

use serde::Serialize;
use surprisal_api::Problem;

use crate::problem::{self, Failure};

/// Returns one event with this JSON value.
pub(super) fn event(event: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, event).map_err(problem::serialization_failed)?;
    bytes.extend_from_slice(b"\n\n");
    Ok(bytes)
}

/// Returns the last events: the problem, if there is one, and `[DONE]`. A problem contains an error in OpenAI's format.
pub(super) fn last_events(problem: Option<Problem>) -> Vec<u8> {
    let mut bytes = problem.and_then(|problem| event(&problem).ok()).unwrap_or_default();
    bytes.extend_from_slice(b"data: [DONE]\n\n");
    bytes
}
