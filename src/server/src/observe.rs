//! What surrounds every request: a log line, counts by route and status, and a problem in place of a panic.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use crate::App;
use crate::problem::{self, ProblemName};
use crate::trace::{TRACEPARENT, Trace};

/// nginx's status for a client that went away before it was answered.
const CLIENT_GONE: u16 = 499;

/// The status of those who find no room.
const TOO_MANY: u16 = 429;

/// Runs the rest of the stack.
pub(crate) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let trace = Trace::begin(request.headers(), app.records());
    let span = tracing::info_span!("request", %method, path, trace = format_args!("{:032x}", trace.trace));
    let watch = Watch {
        app,
        method,
        route,
        #[cfg(feature = "otlp")]
        trace,
        span: span.clone(),
        start: Instant::now(),
        answered: false,
    };
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span).await;
    let mut response = answer.unwrap_or_else(|_| problem::internal().into_response());
    response.headers_mut().extend(trace.header().map(|value| (TRACEPARENT, value)));
    watch.answered(&response);
    response
}

/// Counts a request when it is answered, or when it is dropped before.
struct Watch {
    app: App,
    method: Method,
    route: String,
    #[cfg(feature = "otlp")]
    trace: Trace,
    span: tracing::Span,
    start: Instant,
    answered: bool,
}

impl Watch {
    fn answered(mut self, response: &Response) {
        self.answered = true;
        let problem = response.extensions().get::<ProblemName>().map(|name| name.0);
        self.finish(response.status().as_u16(), problem);
    }

    fn finish(&self, status: u16, problem: Option<&'static str>) {
        self.app.metrics.count_http(&self.route, status, problem);
        let seconds = self.start.elapsed().as_secs_f64();
        self.span.in_scope(|| match status {
            500.. => tracing::warn!(status, problem, seconds, "failed"),
            CLIENT_GONE => tracing::info!(status, seconds, "the client went away"),
            // Probes and scrapes come every few seconds, and refusals have a line together (`pressure`).
            _ if self.method == Method::GET || status == TOO_MANY => {
                tracing::debug!(status, problem, seconds, "answered");
            }
            _ => tracing::info!(status, problem, seconds, "answered"),
        });
        #[cfg(feature = "otlp")]
        if let Some(spans) = &self.app.spans {
            spans.end(&crate::export::RequestSpan {
                trace: self.trace,
                method: self.method.as_str(),
                route: &self.route,
                status,
                problem,
                elapsed: self.start.elapsed(),
            });
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.answered {
            self.finish(CLIENT_GONE, None);
        }
    }
}
