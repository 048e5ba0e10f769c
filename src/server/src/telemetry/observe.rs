//! The middleware around every request. It logs and counts the request, and turns a panic into a problem.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use super::Telemetry;
#[cfg(feature = "otlp")]
use super::export::RequestSpan;
use super::trace::{TRACEPARENT, TraceContext};
use crate::problem::{self, ProblemName};

/// The status of a request whose client disconnected before the response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The status of a rejection under overload.
const TOO_MANY_REQUESTS: u16 = 429;

/// Runs the rest of the stack and observes the request.
pub(crate) async fn observe(State(telemetry): State<Telemetry>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let trace = TraceContext::from_headers(request.headers(), telemetry.exports_spans());
    let span = tracing::info_span!("request", %method, path, trace = format_args!("{:032x}", trace.trace_id));
    let observation = Observation {
        telemetry,
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
    response.headers_mut().extend(trace.header_value().map(|value| (TRACEPARENT, value)));
    observation.answered(&response);
    response
}

/// A request to record when it is answered, or when it is dropped without an answer.
struct Observation {
    telemetry: Telemetry,
    method: Method,
    route: String,
    #[cfg(feature = "otlp")]
    trace: TraceContext,
    span: tracing::Span,
    start: Instant,
    answered: bool,
}

impl Observation {
    fn answered(mut self, response: &Response) {
        self.answered = true;
        let problem = response.extensions().get::<ProblemName>().map(|name| name.0);
        self.record(response.status().as_u16(), problem);
    }

    /// Counts and logs the request, and exports its span.
    fn record(&self, status: u16, problem: Option<&'static str>) {
        self.telemetry.metrics.count_http(&self.route, status, problem);
        let seconds = self.start.elapsed().as_secs_f64();
        self.span.in_scope(|| match status {
            500.. => tracing::warn!(status, problem, seconds, "request failed"),
            CLIENT_CLOSED_REQUEST => tracing::info!(status, seconds, "client disconnected"),
            // Probes and scrapes come every few seconds, and `pressure` logs one line for all rejections.
            _ if self.method == Method::GET || status == TOO_MANY_REQUESTS => {
                tracing::debug!(status, problem, seconds, "request answered");
            }
            _ => tracing::info!(status, problem, seconds, "request answered"),
        });
        #[cfg(feature = "otlp")]
        if let Some(spans) = &self.telemetry.spans {
            spans.record(&RequestSpan {
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

impl Drop for Observation {
    fn drop(&mut self) {
        if !self.answered {
            self.record(CLIENT_CLOSED_REQUEST, None);
        }
    }
}
