//! Streamed responses: parts that are sent as soon as they are ready, and a last part.

use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use surprisal_api::Problem;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::context::RequestContext;
use super::pipe::{PipeWriter, pipe};
use crate::app::App;
use crate::limits::admission::WorkPermit;
use crate::problem::Failure;

/// The media type of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// A request with a streamed response, and the permit for its work.
pub(super) struct StreamedRequest {
    /// Held until the socket has taken the last part, or the client disconnects.
    pub(super) context: RequestContext,
    /// Held until the work is done, or the client disconnects; `None` for a request without tokens.
    pub(super) permit: Option<WorkPermit>,
    /// Number of tokens to count as answered; `None` for a request without tokens.
    pub(super) tokens: Option<u32>,
}

impl StreamedRequest {
    /// Responds at once. A separate task runs `work`, which sends parts. The task then sends the last part, which `end`
    /// makes from the result of `work`; without a last part, the response ends with an error. The task ends early if
    /// the client disconnects, or the connection ends because the client reads too slowly. The client has until the
    /// request's deadline to read the response, and at least `stall_seconds` for the last part.
    pub(super) fn respond<T: Send + 'static, F>(
        self,
        media: &'static str,
        work: impl FnOnce(App, Arc<PipeWriter>) -> F + Send + 'static,
        end: impl FnOnce(&App, Result<T, Problem>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Response
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let (writer, body) = pipe(self.context.app.clone(), self.context.in_flight.account());
        // Events are sent as they are.
        let compressor = Some(self.context.compressor_bytes).filter(|&bytes| bytes > 0 && media != EVENT_STREAM);
        tokio::spawn(self.run(Arc::new(writer), compressor, work, end).in_current_span());
        ([(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-cache")], body).into_response()
    }

    async fn run<T: Send, F: Future<Output = Result<T, Failure>> + Send>(
        self,
        pipe: Arc<PipeWriter>,
        compressor: Option<usize>,
        work: impl FnOnce(App, Arc<PipeWriter>) -> F + Send,
        end: impl FnOnce(&App, Result<T, Problem>) -> Option<Vec<u8>> + Send,
    ) {
        let Self { context: RequestContext { app, in_flight, start, .. }, permit, tokens } = self;
        let metrics = &app.telemetry.metrics;
        let work = async {
            let compressor = match compressor {
                Some(bytes) => Some(app.admission.reserve_compressor(in_flight.account(), bytes).await),
                None => None,
            };
            Ok((work(app.clone(), Arc::clone(&pipe)).await?, compressor))
        };
        // Dropping the work drops its queries, which frees their blocks.
        let done = tokio::select! {
            () = pipe.closed() => return metrics.count_abandoned_stream(),
            done = app.within_deadline(in_flight.deadline(), work) => done.and_then(|done| done),
        };
        match &done {
            Ok(_) => tokens.into_iter().for_each(|tokens| metrics.count_success(start.elapsed().as_secs_f64(), tokens)),
            Err(failure) => metrics.count_problem(failure.name()),
        }
        drop(permit);
        let (done, _compressor) = match done {
            Ok((done, compressor)) => (Ok(done), compressor),
            Err(failure) => (Err(failure.into_problem()), None),
        };
        let is_sent = match end(&app, done) {
            Some(last) => {
                let deadline = in_flight.deadline().max(Instant::now() + app.config.stall_window());
                timeout_at(deadline, pipe.finish(last)).await.is_ok()
            }
            None => false,
        };
        if !is_sent {
            pipe.break_off();
        }
        drop(in_flight);
    }
}
