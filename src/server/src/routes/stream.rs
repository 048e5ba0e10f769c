//! Streamed responses: lines that are sent as soon as they are ready, and a last line.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use surprisal_api::Problem;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::context::RequestContext;
use crate::app::App;
use crate::limits::admission::Permit;
use crate::problem::Failure;

/// The maximum number of lines that are buffered for a slow client.
const LINE_BUFFER: usize = 256;

/// The sender of a stream's lines.
pub(super) type LineSender = mpsc::Sender<Vec<u8>>;

/// A request with a streamed response, and the permit for its tokens.
pub(super) struct StreamedRequest {
    /// Held until the last line is written, or the client disconnects.
    pub(super) context: RequestContext,
    /// Held until the work is done, or the client disconnects.
    pub(super) permit: Permit,
    pub(super) tokens: u32,
}

impl StreamedRequest {
    /// Responds at once. A separate task runs `work`, which sends lines. The task then sends the last line, which `end`
    /// makes from the result of `work`. The task ends early if the client disconnects.
    pub(super) fn respond<T: Send + 'static, F>(
        self,
        media: &'static str,
        work: impl FnOnce(App, LineSender) -> F + Send + 'static,
        end: impl FnOnce(&App, Result<T, Problem>) -> Vec<u8> + Send + 'static,
    ) -> Response
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let (lines, receiver) = mpsc::channel(LINE_BUFFER + 1);
        tokio::spawn(self.run(lines, work, end).in_current_span());
        let lines =
            unfold(receiver, |mut lines| async move { Some((Ok::<_, Infallible>(lines.recv().await?), lines)) });
        ([(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-cache")], Body::from_stream(lines)).into_response()
    }

    async fn run<T: Send, F: Future<Output = Result<T, Failure>> + Send>(
        self,
        lines: LineSender,
        work: impl FnOnce(App, LineSender) -> F + Send,
        end: impl FnOnce(&App, Result<T, Problem>) -> Vec<u8> + Send,
    ) {
        let Self { context: RequestContext { app, in_flight, start, .. }, permit, tokens } = self;
        let metrics = &app.telemetry.metrics;
        // The last line has a reserved slot, so it never waits for a slow client.
        let Ok(last) = lines.clone().reserve_owned().await else { return metrics.count_abandoned_stream() };
        // Dropping the work drops its queries, which frees their blocks.
        let done = tokio::select! {
            () = lines.closed() => return metrics.count_abandoned_stream(),
            done = app.within_deadline(work(app.clone(), lines.clone())) => done.and_then(|done| done),
        };
        match &done {
            Ok(_) => metrics.count_success(start.elapsed().as_secs_f64(), tokens),
            Err(failure) => metrics.count_problem(failure.name()),
        }
        drop(permit);
        last.send(end(&app, done.map_err(Failure::into_problem)));
        drop(in_flight);
    }
}

/// Returns `true` if the client has not read all lines.
pub(super) fn has_unread(lines: &LineSender) -> bool {
    // The last line's slot is always reserved.
    lines.max_capacity() - lines.capacity() > 1
}

/// Sends a line. Ignores an error, because it means that the client has disconnected, which
/// [`StreamedRequest::respond`] detects.
pub(super) async fn send(lines: &LineSender, bytes: Vec<u8>) {
    let _ = lines.send(bytes).await;
}
