//! Helpers for the responses of several routes.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use axum::Extension;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use surprisal_api::Problem;

use super::context::RequestContext;
use super::parts::{PART_BYTES, Parts, send_all, whole_size, write_all};
use super::pipe::PipeWriter;
use super::stream::StreamedRequest;
use crate::app::App;
use crate::limits::admission::{ResponsePermit, WorkPermit};
use crate::problem::{self, Failure};

/// The media type of JSON.
pub(super) const JSON: &str = "application/json";

/// vLLM's substitute for minus infinity, which JSON cannot represent.
pub(super) const LOWEST_LOGPROB: f32 = -9999.0;

/// Writes the response to a request, and counts the request and its tokens as answered. A large response is sent in
/// parts, each of which is written once the socket has taken most of the previous one. `work_permit`, for the tokens, is
/// held until the response is written.
pub(super) async fn respond(
    context: RequestContext,
    tokens: u32,
    work_permit: WorkPermit,
    parts: impl Parts,
) -> Result<Response, Failure> {
    let Some(size) = whole_size(&parts) else {
        let (in_flight, media) = (Arc::clone(&context.in_flight), parts.media());
        let request = StreamedRequest { context, permit: Some(work_permit), tokens: Some(tokens) };
        return Ok(request.respond(media, |app, pipe| send_all(app, in_flight, pipe, parts), no_last_part));
    };
    let RequestContext { app, in_flight, start, .. } = context;
    let permit = app.admission.reserve_response(in_flight.account(), size.memory).await;
    let response = in_flight.offload(&app, size, move |app| write_all(app, parts, permit)).await?;
    app.telemetry.metrics.count_success(start.elapsed().as_secs_f64(), tokens);
    Ok(response)
}

/// Responds with serialized JSON. Rejects the request if there is no capacity for the response.
pub(super) fn respond_written(context: RequestContext, json: Vec<u8>) -> Result<Response, Failure> {
    let permit = context.app.admission.admit_response(context.client.account(), json.len())?;
    if json.len() <= PART_BYTES {
        let permit = Extension(ResponsePermit::new(permit, json.capacity()));
        return Ok(([(header::CONTENT_TYPE, JSON)], permit, json).into_response());
    }
    let send = |_, pipe: Arc<PipeWriter>| async move {
        pipe.push(json, Some(permit));
        Ok(())
    };
    Ok(StreamedRequest { context, permit: None, tokens: None }.respond(JSON, send, no_last_part))
}

/// Ends a response whose parts are complete. Nothing can follow a part of an incomplete one.
fn no_last_part(_: &App, result: Result<(), Problem>) -> Option<Vec<u8>> {
    result.is_ok().then(Vec::new)
}

/// Writes JSON on the calling thread, so large JSON must be written off the reactor.
pub(super) fn json(answer: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(answer).map_err(problem::serialization_failed)
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
