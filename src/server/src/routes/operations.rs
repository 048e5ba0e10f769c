//! Routes for operators and tools: health, load, version, metrics, the dashboard and the OpenAPI document.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use surprisal_api::{ServerLoad, SglangEngineState, SglangServerInfo, VersionInfo};

use super::response::JSON;
use crate::app::App;
use crate::openapi;
use crate::problem::{self, Failure};

/// The version of this server.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers `GET /health`, and the routes of vLLM, SGLang and SageMaker with the same purpose: reports whether the engine
/// is alive.
pub(super) async fn health(State(app): State<App>) -> Result<&'static str, Failure> {
    if app.scorer.is_alive() {
        Ok("ok\n")
    } else {
        Err(problem::engine_stopped("the engine failed; requests fail until the model is reloaded"))
    }
}

/// Answers `GET /ready`: reports whether the server accepts new work.
pub(super) async fn ready(State(app): State<App>) -> Result<&'static str, Failure> {
    if app.drain.is_draining() {
        Err(problem::shutting_down())
    } else {
        Ok(health(State(app)).await.map(|_| "ready\n")?)
    }
}

/// Answers `GET /version` in vLLM's format.
pub(super) async fn version() -> Json<VersionInfo> {
    Json(VersionInfo { version: VERSION.to_owned() })
}

/// Answers `GET /load` in vLLM's format: reports the number of requests in flight.
pub(super) async fn load(State(app): State<App>) -> Json<ServerLoad> {
    Json(ServerLoad { server_load: app.admission.requests() })
}

/// Answers `GET /server_info` in SGLang's format.
pub(super) async fn sglang_server_info(State(app): State<App>) -> Json<SglangServerInfo> {
    let card = app.model();
    let state = SglangEngineState { effective_max_running_requests_per_dp: app.config.max_waiting_requests };
    Json(SglangServerInfo {
        model_path: card.id.clone(),
        served_model_name: card.id.clone(),
        tokenizer_path: card.id.clone(),
        context_length: card.max_length,
        version: VERSION.to_owned(),
        internal_states: vec![state],
    })
}

/// Answers `GET /metrics` in Prometheus text format.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Failure> {
    let text = app.telemetry.metrics.text().map_err(|error| {
        tracing::error!(%error, "writing the metrics failed");
        problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

/// Answers `GET /openapi.json`: describes the routes, for programs and developers.
pub(super) async fn openapi(State(app): State<App>) -> impl IntoResponse {
    // All responses share the bytes, so unread ones take no memory.
    let document = app.openapi.get_or_init(|| openapi::document(&app).to_string().into());
    ([(header::CONTENT_TYPE, JSON)], document.clone())
}

/// Answers `GET /` with the dashboard, a single HTML file that reads only `/metrics`.
pub(super) async fn page() -> impl IntoResponse {
    const POLICY: &str =
        "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, include_str!("page.html"))
}
