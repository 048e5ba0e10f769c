//! Answers whose lines follow one another; that of `/logprobs` as NDJSON: each result as soon as it is there.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, unfold};
use surprisal_api::{NDJSON, Problem, StreamLine, Usage};
use tokio::sync::mpsc;
use tracing::Instrument;

use super::InFlight;
use super::logprobs::result;
use crate::App;
use crate::admission::Permit;
use crate::app::TOKEN_BYTES;
use crate::prepare::Prepared;
use crate::problem::{self, Failure};

/// Lines that may wait for a client that reads slowly.
const AHEAD: usize = 256;

pub(super) type Lines = mpsc::Sender<Vec<u8>>;

/// True if the client names this media type among what it accepts.
pub(super) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let essence = range.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(media)
    })
}

/// What is held until the client goes away, or else:
pub(super) struct Held {
    /// Until nothing is left to compute.
    pub(super) permit: Permit,
    /// Until the last line is written.
    pub(super) in_flight: Arc<InFlight>,
    pub(super) start: Instant,
}

/// Answers at once. The lines follow from a task of their own, which ends when the client goes away: those that `work` sends, and
/// a last one, which `end` makes of what came of it.
pub(super) fn respond<T: Send, F>(
    app: App,
    media: &'static str,
    held: Held,
    tokens: u32,
    work: impl FnOnce(App, Lines) -> F + Send + 'static,
    end: impl FnOnce(&App, Result<T, Problem>) -> Vec<u8> + Send + 'static,
) -> Response
where
    F: Future<Output = Result<T, Failure>> + Send,
{
    let (lines, receiver) = mpsc::channel(AHEAD + 1);
    let task = async move {
        // The last line has a place of its own: it waits for no client, however slowly it reads.
        let Ok(last) = lines.clone().reserve_owned().await else { return app.metrics.count_abandoned() };
        // Dropping the work drops its queries, which frees their blocks.
        let done = tokio::select! {
            () = lines.closed() => return app.metrics.count_abandoned(),
            done = app.within_deadline(work(app.clone(), lines.clone())) => done.and_then(|done| done),
        };
        match &done {
            Ok(_) => app.metrics.count_answer(held.start.elapsed().as_secs_f64(), tokens),
            Err(failure) => app.metrics.count_problem(failure.name()),
        }
        drop(held.permit);
        last.send(end(&app, done.map_err(Failure::into_problem)));
        drop(held.in_flight);
    };
    tokio::spawn(task.in_current_span());
    let lines = unfold(receiver, |mut lines| async move { Some((Ok::<_, Infallible>(lines.recv().await?), lines)) });
    ([(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-cache")], Body::from_stream(lines)).into_response()
}

/// Results as NDJSON, and at the end what they cost.
pub(super) fn results(app: App, prepared: Prepared, held: Held) -> Response {
    let (tokens, in_flight) = (prepared.tokens, Arc::clone(&held.in_flight));
    let end = |app: &App, ended| {
        let card = app.model();
        let last = match ended {
            Ok(usage) => StreamLine::End { model: card.id.clone(), fingerprint: card.fingerprint.clone(), usage },
            Err(problem) => StreamLine::Problem(problem),
        };
        line(&last).unwrap_or_default()
    };
    respond(app, NDJSON, held, tokens, |app, lines| score(app, prepared, in_flight, lines), end)
}

async fn score(app: App, prepared: Prepared, in_flight: Arc<InFlight>, lines: Lines) -> Result<Usage, Failure> {
    let Prepared { form, queries, labels, .. } = prepared;
    let mut labels: Vec<_> = labels.into_iter().map(Some).collect();
    let asked = queries.into_iter().map(|query| app.scorer.score(query));
    let numbered = asked.enumerate().map(|(index, answer)| async move { (index, answer.await) });
    let mut pending: FuturesUnordered<_> = numbered.collect();
    let mut usage = Usage::default();
    while let Some((index, scores)) = pending.next().await {
        let scores = scores.map_err(|error| problem::not_scored(index, form.query_field(index), &error))?;
        let Some(label) = labels[index].take() else { continue };
        let bytes = scores.logprobs.len() * (1 + usize::from(label.extras.top)) * TOKEN_BYTES;
        let written = app.offload(Arc::clone(&in_flight), bytes, move |_| {
            let result = result(index, label, scores, &mut usage)?;
            Ok((line(&StreamLine::Result { index, result })?, usage))
        });
        let bytes;
        (bytes, usage) = written.await?;
        send(&lines, bytes).await;
    }
    Ok(usage)
}

fn line(line: &StreamLine) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec(line).map_err(problem::unwritable)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A client that has gone away is noticed by [`respond`].
pub(super) async fn send(lines: &Lines, bytes: Vec<u8>) {
    let _ = lines.send(bytes).await;
}
