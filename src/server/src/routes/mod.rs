//! The routes, each of which checks its requests, runs them and writes the responses.
//!
//! Start with [`router`]. Every request that does work passes `gate`; its route then receives a
//! `context::RequestContext`. Several routes share `response`, which writes the `parts` of a response, `stream`, which
//! sends them through a `pipe`, and `events`. `unsupported` explains routes of other servers that this server does not
//! have.

mod completions;
mod context;
mod events;
mod gate;
mod generate;
mod logprobs;
mod model;
mod operations;
mod parts;
mod pipe;
mod response;
mod stream;
mod tokenize;
mod unsupported;

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::app::App;
use crate::limits::client::CLIENT_ID;
use crate::problem::{self, Failure};
use crate::telemetry::observe::observe;
use crate::telemetry::trace::TRACEPARENT;

/// The minimum size of a response to compress, in bytes: smaller responses fit into one packet, and compression has a
/// fixed cost.
const MIN_COMPRESSED_BYTES: u16 = 1024;

/// Returns a router with all routes of an app. [`serve`](fn@crate::serve) also listens and shuts down.
pub fn router(app: App) -> Router {
    let scoring = Router::new()
        .route("/logprobs", post(logprobs::logprobs))
        .route("/v1/completions", post(completions::completions))
        .route("/lm-eval/v1/completions", post(completions::completions))
        .route("/generate", post(generate::generate))
        .route_layer(from_fn_with_state(app.clone(), gate::precheck));
    let texts = Router::new()
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/lm-eval/tokenize", post(tokenize::tokenize_for_lm_eval))
        .route("/lm-eval/detokenize", post(tokenize::detokenize));
    let work = scoring.merge(texts).route_layer(from_fn_with_state(app.clone(), gate::admit));
    let compressed =
        CompressionLayer::new().compress_when(DefaultPredicate::new().and(SizeAbove::new(MIN_COMPRESSED_BYTES)));
    let routes = Router::new()
        .merge(work)
        .merge(description())
        .route("/metrics", get(operations::metrics))
        .route("/openapi.json", get(operations::openapi))
        .route("/", get(operations::page))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(compressed);
    let routes = match cors(&app.config.cors_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    observed(routes, app)
}

/// Returns the routes for operators, which have a listener of their own.
pub(crate) fn admin_router(app: App) -> Router {
    let routes = probes().route("/metrics", get(operations::metrics));
    observed(routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed), app)
}

/// Checks the heads of all requests, records the requests, and completes the router.
fn observed(routes: Router<App>, app: App) -> Router {
    let observe = from_fn_with_state(app.telemetry.clone(), observe);
    routes.layer(from_fn(gate::check_head)).layer(observe).with_state(app)
}

/// Returns the CORS layer that allows requests from pages of these origins; `None` if there are no origins.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins = match origins {
        [] => return None,
        origins if origins.iter().any(|origin| origin == "*") => AllowOrigin::from(Any),
        origins => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let headers = [header::AUTHORIZATION, header::CONTENT_ENCODING, header::CONTENT_TYPE, CLIENT_ID, TRACEPARENT];
    let cors = CorsLayer::new().allow_origin(origins).allow_methods([Method::GET, Method::POST]).allow_headers(headers);
    Some(cors.expose_headers([header::RETRY_AFTER, TRACEPARENT]).max_age(Duration::from_secs(3600)))
}

/// Returns the routes that describe the model and the server, under the names that vLLM and SGLang give them.
fn description() -> Router<App> {
    Router::new()
        .route("/v1/models", get(model::models))
        .route("/v1/models/{*model}", get(model::retrieve))
        .route("/tokenizer_info", get(model::tokenizer_info))
        .route("/lm-eval/tokenizer_info", get(model::tokenizer_info))
        .route("/model_info", get(model::sglang_model_info))
        .route("/get_model_info", get(model::sglang_model_info))
        .route("/server_info", get(operations::sglang_server_info))
        .route("/get_server_info", get(operations::sglang_server_info))
        .route("/version", get(operations::version))
        .route("/load", get(operations::load))
        .merge(probes())
}

/// Returns the routes that report whether the server works.
fn probes() -> Router<App> {
    Router::new()
        .route("/health", get(operations::health))
        .route("/health_generate", get(operations::health))
        .route("/ping", get(operations::health).post(operations::health))
        .route("/ready", get(operations::ready))
}

async fn not_found(method: Method, uri: Uri) -> Failure {
    problem::route_not_found(method.as_str(), uri.path(), unsupported::advice(uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    problem::method_not_allowed(method.as_str(), uri.path())
}
