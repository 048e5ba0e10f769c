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

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tower_http::decompression::RequestDecompressionLayer;

pub(crate) use self::work::{MAX_STOP_TOKENS, MAX_STOPS};
use crate::admission::Permit;
use crate::client::{CLIENT_ID, Client};
use crate::drain::Working;
use crate::observe::observe;
use crate::problem::{self, Failure};
use crate::trace::TRACEPARENT;
use crate::{App, body};

/// Answers of fewer bytes are not compressed: they fit into a packet, and what compresses has to be set up first.
const LITTLE: u16 = 1024;

/// All routes of an app; [`serve`](crate::serve()) listens and shuts down as well.
pub fn router(app: App) -> Router {
    // What it cannot decode is refused by `body`, as a problem.
    let decompressed = || RequestDecompressionLayer::new().pass_through_unaccepted(true);
    let scoring = Router::new()
        .route("/logprobs", post(logprobs::logprobs))
        .route("/v1/completions", post(completions::completions))
        .route("/generate", post(generate::generate))
        .layer(decompressed())
        .route_layer(from_fn_with_state(app.clone(), look));
    let texts = Router::new()
        .route("/tokenize", post(meta::tokenize))
        .route("/detokenize", post(meta::detokenize))
        .layer(decompressed());
    let work = scoring.merge(texts).route_layer(from_fn_with_state(app.clone(), work));
    let compressed = CompressionLayer::new().compress_when(DefaultPredicate::new().and(SizeAbove::new(LITTLE)));
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
        .layer(compressed);
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

/// What a request holds until the last byte of its answer is made: a place among those in flight; shutting down waits for it.
pub(crate) struct InFlight {
    _working: Working,
    _place: Permit,
}

/// Work is done for those who may ask for it and find a place, refused once shutdown is asked, and finished if it was taken
/// before.
async fn work(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let (client, in_flight) = match enter(&app, request.headers()) {
        Ok(entered) => entered,
        Err(refused) => return Err(turn_away(&app, request, refused).await),
    };
    request.extensions_mut().insert(client);
    // Held here, and by those who answer, or work, after they have returned.
    let in_flight = Arc::new(in_flight);
    request.extensions_mut().insert(Arc::clone(&in_flight));
    app.within_deadline(next.run(request)).await
}

fn enter(app: &App, headers: &HeaderMap) -> Result<(Client, InFlight), Failure> {
    let client = Client::of(app.keys.check(headers)?, headers);
    let working = app.drain.enter().ok_or_else(problem::shutting_down)?;
    let place = app.admission.enter(client.account())?;
    Ok((client, InFlight { _working: working, _place: place }))
}

/// Whoever would find no room, however little it took, is refused before its request is read.
async fn look(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    match app.admission.look(client.account()) {
        Ok(()) => Ok(next.run(request).await),
        Err(full) => Err(turn_away(&app, request, full).await),
    }
}

async fn turn_away(app: &App, request: Request, failure: Failure) -> Failure {
    let passed = app.within_deadline(body::pass_by(request, app.config.max_body_bytes)).await;
    passed.err().unwrap_or(failure)
}

async fn not_found(method: Method, uri: Uri) -> Failure {
    problem::route_not_found(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    problem::method_not_allowed(method.as_str(), uri.path())
}
