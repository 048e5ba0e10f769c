//! The answer of `/logprobs` as NDJSON: each result as soon as it is there.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, unfold};
use surprisal_api::{NDJSON, StreamLine, Usage};
use tokio::sync::mpsc;
use tracing::Instrument;

use super::InFlight;
use super::logprobs::result;
use crate::App;
use crate::admission::Permit;
use crate::prepare::Prepared;
use crate::problem::{self, Failure};

/// Lines that may wait for a client that reads slowly.
const AHEAD: usize = 256;

/// How long the last line waits for a client that reads nothing.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// Answers at once; the lines follow from a task of their own, which ends when the client goes away.
pub(super) fn respond(app: App, prepared: Prepared, held: Held) -> Response {
    let (lines, receiver) = mpsc::channel(AHEAD);
    let work = async move {
        // Dropping the work drops its queries, which frees their blocks.
        tokio::select! {
            () = lines.closed() => app.metrics.count_abandoned(),
            () = write(&app, prepared, held, &lines) => {}
        }
    };
    tokio::spawn(work.in_current_span());
    let lines = unfold(receiver, |mut lines| async move { Some((Ok::<_, Infallible>(lines.recv().await?), lines)) });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}

async fn write(app: &App, prepared: Prepared, held: Held, lines: &mpsc::Sender<Vec<u8>>) {
    let tokens = prepared.tokens;
    let scored = app.within_deadline(score(app, prepared, lines)).await;
    let last = match scored.and_then(|usage| usage) {
        Ok(usage) => {
            app.metrics.count_answer(held.start.elapsed().as_secs_f64(), tokens);
            let card = app.model();
            StreamLine::End { model: card.id.clone(), fingerprint: card.fingerprint.clone(), usage }
        }
        Err(failure) => {
            app.metrics.count_problem(failure.name());
            StreamLine::Problem(failure.into_problem())
        }
    };
    drop(held.permit);
    last_of(send(lines, &last)).await;
    drop(held.in_flight);
}

/// A client that reads nothing is not waited for, and has no last line to go by.
pub(super) async fn last_of<T>(sent: impl Future<Output = T>) {
    if tokio::time::timeout(PATIENCE, sent).await.is_err() {
        tracing::warn!("a client read nothing for {PATIENCE:?}: its answer has no end");
    }
}

async fn score(app: &App, prepared: Prepared, lines: &mpsc::Sender<Vec<u8>>) -> Result<Usage, Failure> {
    let Prepared { form, queries, labels, .. } = prepared;
    let mut labels: Vec<_> = labels.into_iter().map(Some).collect();
    let asked = queries.into_iter().map(|query| app.scorer.score(query));
    let numbered = asked.enumerate().map(|(index, answer)| async move { (index, answer.await) });
    let mut pending: FuturesUnordered<_> = numbered.collect();
    let mut usage = Usage::default();
    while let Some((index, scores)) = pending.next().await {
        let scores = scores.map_err(|error| problem::not_scored(index, form.query_field(index), &error))?;
        let Some(label) = labels[index].take() else { continue };
        let result = result(index, label, scores, &mut usage)?;
        send(lines, &StreamLine::Result { index, result }).await?;
    }
    Ok(usage)
}

/// A client that has gone away is noticed by `respond`.
async fn send(lines: &mpsc::Sender<Vec<u8>>, line: &StreamLine) -> Result<(), Failure> {
    let mut bytes = serde_json::to_vec(line).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        problem::internal()
    })?;
    bytes.push(b'\n');
    let _ = lines.send(bytes).await;
    Ok(())
}
