//! Routes for operators and tools: health, metrics, the dashboard and the OpenAPI document.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::openapi;
use crate::problem::{self, Failure};

/// Answers `GET /health`: reports whether the engine is alive.
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

/// Answers `GET /metrics` in Prometheus text format.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Failure> {
    let text = app.telemetry.metrics.text().map_err(|error| {
        tracing::error!(%error, "writing the metrics failed");
        problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

/// Answers `GET /openapi.json`: describes the routes, for programs and developers.
pub(super) async fn openapi(State(app): State<App>) -> Json<serde_json::Value> {
    Json(openapi::document(&app))
}

/// Answers `GET /` with the dashboard, a single HTML file that reads only `/metrics`.
pub(super) async fn page() -> impl IntoResponse {
    const POLICY: &str =
        "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, include_str!("page.html"))
}
