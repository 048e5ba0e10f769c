//! The routes beside the question: the model, its tokenizer, health, metrics.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use surprisal_api::{
    Bos, DetokenizeRequest, DetokenizeResponse, ModelInfo, ModelList, TokenizeRequest, TokenizeResponse, TokenizerInfo,
};

use super::InFlight;
use crate::client::Client;
use crate::prepare::{begin, check_vocabulary};
use crate::problem::{self, Failure};
use crate::{App, body, openapi};

pub(super) async fn models(State(app): State<App>) -> Json<ModelList> {
    let card = app.model();
    let info = ModelInfo {
        id: card.id.clone(),
        object: "model".to_owned(),
        created: app.started,
        owned_by: "surprisal".to_owned(),
        max_model_len: card.max_length,
        vocab_size: card.vocab_size,
        fingerprint: card.fingerprint.clone(),
    };
    Json(ModelList { object: "list".to_owned(), data: vec![info] })
}

pub(super) async fn tokenizer_info(State(app): State<App>) -> Json<TokenizerInfo> {
    let card = app.model();
    Json(TokenizerInfo { vocab_size: card.vocab_size, model_max_length: card.max_length, ..app.codec.info() })
}

pub(super) async fn tokenize(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    Extension(in_flight): Extension<Arc<InFlight>>,
    request: Request,
) -> Result<Response, Failure> {
    let bytes = body::read(&app, client, request).await?;
    app.offload(in_flight, bytes.len(), move |app| {
        let TokenizeRequest { model, prompt, add_special_tokens } = body::parse(&bytes)?;
        app.check_model(model.as_deref())?;
        let text = app.codec.encode(&prompt).map_err(|reason| problem::text_not_encodable("prompt", None, &reason))?;
        let tokens = begin(if add_special_tokens { Bos::Auto } else { Bos::None }, app.codec.bos(), text);
        json(&TokenizeResponse { count: tokens.len(), tokens, max_model_len: app.model().max_length })
    })
    .await
}

pub(super) async fn detokenize(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    Extension(in_flight): Extension<Arc<InFlight>>,
    request: Request,
) -> Result<Response, Failure> {
    let bytes = body::read(&app, client, request).await?;
    app.offload(in_flight, bytes.len(), move |app| {
        let DetokenizeRequest { model, tokens } = body::parse(&bytes)?;
        app.check_model(model.as_deref())?;
        check_vocabulary(&tokens, app.model().vocab_size, "tokens", None)?;
        let prompt = app.codec.decode(&tokens).map_err(|reason| problem::tokens_not_decodable("tokens", &reason))?;
        json(&DetokenizeResponse { prompt })
    })
    .await
}

/// An answer that was written where it was made, off the reactor.
pub(super) fn json(answer: &impl Serialize) -> Result<Response, Failure> {
    let bytes = serde_json::to_vec(answer).map_err(problem::unwritable)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// The process lives, and its engine.
pub(super) async fn health(State(app): State<App>) -> Result<&'static str, Failure> {
    if app.scorer.is_alive() {
        Ok("ok\n")
    } else {
        Err(problem::engine_stopped("the engine died; it is being started again"))
    }
}

/// New work is taken.
pub(super) async fn ready(State(app): State<App>) -> Result<&'static str, Failure> {
    if app.drain.is_draining() {
        Err(problem::shutting_down())
    } else {
        Ok(health(State(app)).await.map(|_| "ready\n")?)
    }
}

/// What can be asked, for programs and their makers.
pub(super) async fn openapi(State(app): State<App>) -> Json<serde_json::Value> {
    Json(openapi::document(&app))
}

/// The live page: one file, which reads `/metrics` and nothing else.
pub(super) async fn page() -> impl IntoResponse {
    const POLICY: &str =
        "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, include_str!("page.html"))
}

pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Failure> {
    let text = app.metrics.text().map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
