//! A request's body: bounded, JSON, every field known.

use std::ops::Deref;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use crate::App;
use crate::admission::{Admission, Permit};
use crate::client::Client;
use crate::problem::{self, Failure};

/// A body of which nothing more comes for this long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body's bytes, and the room that they take until this is dropped.
#[derive(Debug)]
pub(crate) struct Content {
    bytes: Vec<u8>,
    room: Permit,
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Content {
    fn add(&mut self, chunk: &[u8], limit: usize, admission: &Admission) -> Result<(), Failure> {
        if self.bytes.len() + chunk.len() > limit {
            return Err(problem::body_too_large(limit));
        }
        admission.grow(&mut self.room, chunk.len())?;
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// The body's bytes, if its type is JSON, its size within the limit, and there is room.
pub(crate) async fn read(app: &App, client: Client, request: Request) -> Result<Content, Failure> {
    let limit = app.config.max_body_bytes;
    if let Err(failure) = check(request.headers(), limit) {
        pass_by(request, limit).await;
        return Err(failure);
    }
    let content = Content { bytes: Vec::new(), room: app.admission.body(client.account()) };
    collect(content, request.into_body(), limit, &app.admission).await
}

fn check(headers: &HeaderMap, limit: usize) -> Result<(), Failure> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = header(header::CONTENT_TYPE).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(problem::unsupported_media_type(content_type));
    }
    let encoding = header(header::CONTENT_ENCODING).unwrap_or_default().trim();
    if !(encoding.is_empty() || encoding.eq_ignore_ascii_case("identity")) {
        return Err(problem::unsupported_encoding(encoding));
    }
    let announced = header(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    let waits_for_leave = headers.contains_key(header::EXPECT);
    if waits_for_leave && announced.is_some_and(|length| length > limit) {
        return Err(problem::body_too_large(limit));
    }
    Ok(())
}

/// Reads on for a while past what is refused: a client that is still sending would see a reset connection, not the problem.
async fn collect(content: Content, body: Body, limit: usize, admission: &Admission) -> Result<Content, Failure> {
    let (mut content, mut length) = (Ok(content), 0_usize);
    let mut stream = body.into_data_stream();
    loop {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await;
        let Some(chunk) = next.map_err(|_| problem::body_stalled(PATIENCE.as_secs()))? else { break };
        let chunk = chunk.map_err(|error| problem::body_unreadable(&error.to_string()))?;
        length = length.saturating_add(chunk.len());
        if let Ok(kept) = &mut content
            && let Err(failure) = kept.add(&chunk, limit, admission)
        {
            content = Err(failure);
        }
        if length > limit.saturating_mul(2) {
            break;
        }
    }
    content
}

/// Lets the body of a request that is refused go by: to a client that is still sending, a connection that closes would look
/// broken. One that waits for leave is given none.
pub(crate) async fn pass_by(request: Request, limit: usize) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let (mut stream, mut length) = (request.into_body().into_data_stream(), 0_usize);
    while length <= limit {
        match tokio::time::timeout(PATIENCE, stream.next()).await {
            Ok(Some(Ok(chunk))) => length = length.saturating_add(chunk.len()),
            _ => return,
        }
    }
}

/// Parses JSON; an error says where.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| match error.inner().classify() {
            Category::Data => problem::invalid_field(&error.path().to_string(), query(error.path()), error.inner()),
            Category::Io | Category::Syntax | Category::Eof => problem::invalid_json(error.inner()),
        })?;
    deserializer.end().map_err(|error| problem::invalid_json(&error))?;
    Ok(value)
}

/// The query or pair that a path leads into.
fn query(path: &Path) -> Option<usize> {
    let mut segments = path.iter();
    match (segments.next(), segments.next()) {
        (Some(Segment::Map { key }), Some(&Segment::Seq { index })) if key == "queries" || key == "pairs" => {
            Some(index)
        }
        _ => None,
    }
}
