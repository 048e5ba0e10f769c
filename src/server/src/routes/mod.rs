//! The routes.

#[cfg(feature = "arrow")]
mod arrow;
mod choice;
mod completions;
mod continuation;
mod generate;
mod logprobs;
mod meta;
mod sse;
mod stream;
mod work;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tower_http::decompression::RequestDecompressionLayer;

use crate::App;
use crate::client::{CLIENT_ID, Client};
use crate::observe::observe;
use crate::problem::{self, Failure};
use crate::trace::TRACEPARENT;

/// All routes of an app; [`serve`](crate::serve()) listens and shuts down as well.
pub fn router(app: App) -> Router {
    let work = Router::new()
        .route("/logprobs", post(logprobs::logprobs))
        .route("/v1/completions", post(completions::completions))
        .route("/generate", post(generate::generate))
        .route("/tokenize", post(meta::tokenize))
        .route("/detokenize", post(meta::detokenize))
        // What it cannot decode is refused by `body`, as a problem.
        .layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
        .route_layer(from_fn_with_state(app.clone(), work));
    let routes = Router::new()
        .merge(work)
        .route("/v1/models", get(meta::models))
        .route("/tokenizer_info", get(meta::tokenizer_info))
        .route("/health", get(meta::health))
        .route("/ready", get(meta::ready))
        .route("/metrics", get(meta::metrics))
        .route("/openapi.json", get(meta::openapi))
        .route("/", get(meta::page))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(CompressionLayer::new());
    let routes = match cors(&app.config.cors_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn_with_state(app.clone(), observe)).with_state(app)
}

/// What pages of these origins may do; nothing, with none.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins = match origins {
        [] => return None,
        origins if origins.iter().any(|origin| origin == "*") => AllowOrigin::from(Any),
        origins => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let sent = [header::AUTHORIZATION, header::CONTENT_ENCODING, header::CONTENT_TYPE, CLIENT_ID, TRACEPARENT];
    let cors = CorsLayer::new().allow_origin(origins).allow_methods([Method::GET, Method::POST]).allow_headers(sent);
    Some(cors.expose_headers([header::RETRY_AFTER, TRACEPARENT]).max_age(Duration::from_secs(3600)))
}

/// Work is done for those who may ask for it, refused once shutdown is asked, and finished if it was taken before.
async fn work(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let client = Client::of(app.keys.check(request.headers())?, request.headers());
    request.extensions_mut().insert(client);
    let working = Arc::new(app.drain.enter().ok_or_else(problem::shutting_down)?);
    request.extensions_mut().insert(Arc::clone(&working));
    app.within_deadline(next.run(request)).await
}

async fn not_found(method: Method, uri: Uri) -> Failure {
    problem::route_not_found(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    problem::method_not_allowed(method.as_str(), uri.path())
}
