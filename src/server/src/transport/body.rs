//! A request's body, which is decoded and read within limits on size, memory and time.

use std::error::Error;
use std::ops::Deref;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::{FutureExt, StreamExt};

use super::decoder::Decoder;
use super::outline::Outline;
use crate::limits::admission::{Admission, Permit};
use crate::limits::client::Client;
use crate::limits::turns::JobSize;
use crate::problem::{self, Failure};
use crate::transport::pace::TooSlow;

/// The maximum number of chunks of a rejected body to discard before the response.
const MAX_ARRIVED_CHUNKS: usize = 16;

/// A body's bytes, which count against the server's limit until they are dropped.
#[derive(Debug)]
pub(crate) struct BodyBytes {
    bytes: Vec<u8>,
    outline: Outline,
    permit: Permit,
}

impl Deref for BodyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyBytes {
    /// Returns the memory for the parsed body, in bytes.
    pub(crate) fn parsing_memory(&self) -> usize {
        self.outline.parsing_memory()
    }

    /// Returns the size of the job that parses the body and tokenizes its texts. The tokenizer takes `encoding_bytes`
    /// per byte of a text.
    pub(crate) fn job(&self, encoding_bytes: usize) -> JobSize {
        JobSize { bytes: self.bytes.len(), memory: self.outline.memory(encoding_bytes) }
    }

    /// Adds decoded bytes.
    fn push(&mut self, decoded: &[u8], limit: usize, admission: &Admission) -> Result<(), Failure> {
        if self.bytes.len() + decoded.len() > limit {
            return Err(problem::body_too_large(limit));
        }
        admission.grow_body(&mut self.permit, decoded.len())?;
        self.outline.read(decoded);
        self.bytes.extend_from_slice(decoded);
        Ok(())
    }
}

/// A body that is being received and decoded.
struct IncomingBody {
    body: BodyBytes,
    decoder: Decoder,
    /// Memory of the decoder that has been counted, in bytes.
    decoder_memory: usize,
    /// Number of bytes received, before decoding.
    received: usize,
}

impl IncomingBody {
    /// Decodes the next chunk, and counts the memory of the bytes and of the decoder.
    fn push(&mut self, chunk: &[u8], limit: usize, admission: &Admission) -> Result<(), Failure> {
        self.received = self.received.saturating_add(chunk.len());
        if self.received > limit {
            return Err(problem::body_too_large(limit));
        }
        let body = &mut self.body;
        self.decoder.decode(chunk, |decoded| body.push(decoded, limit, admission))?;
        let memory = self.decoder.memory();
        if memory > self.decoder_memory {
            admission.grow_body(&mut body.permit, memory - self.decoder_memory)?;
            self.decoder_memory = memory;
        }
        Ok(())
    }

    /// Ends the body, and releases the decoder.
    fn finish(self, limit: usize, admission: &Admission) -> Result<BodyBytes, Failure> {
        let mut body = self.body;
        if self.received > 0 {
            self.decoder.finish(|decoded| body.push(decoded, limit, admission))?;
        }
        body.permit.shrink(body.bytes.len());
        Ok(body)
    }
}

/// Reads and decodes the body if its type is JSON, it has at most `limit` bytes, and the server has capacity for it.
pub(crate) async fn read(
    limit: usize,
    admission: &Admission,
    client: Client,
    request: Request,
) -> Result<BodyBytes, Failure> {
    let decoder = match check_headers(request.headers(), limit) {
        Ok(decoder) => decoder,
        Err(failure) => {
            discard(request, limit).await;
            return Err(failure);
        }
    };
    let permit = admission.body_permit(client.account());
    let body = BodyBytes { bytes: Vec::new(), outline: Outline::default(), permit };
    let incoming = IncomingBody { body, decoder, decoder_memory: 0, received: 0 };
    collect(incoming, request.into_body(), limit, admission).await?.finish(limit, admission)
}

/// Checks the headers; returns the decoder of the body.
fn check_headers(headers: &HeaderMap, limit: usize) -> Result<Decoder, Failure> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = header(header::CONTENT_TYPE).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(problem::unsupported_media_type(content_type));
    }
    let decoder = Decoder::for_headers(headers)?;
    let announced = header(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    let expects_continue = headers.contains_key(header::EXPECT);
    if expects_continue && announced.is_some_and(|length| length > limit) {
        return Err(problem::body_too_large(limit));
    }
    Ok(decoder)
}

/// Collects the body. Continues to read for a while after a failure: otherwise a client that is still sending would see
/// a reset connection instead of the problem. Nothing is decoded after a failure.
async fn collect(
    body: IncomingBody,
    stream: Body,
    limit: usize,
    admission: &Admission,
) -> Result<IncomingBody, Failure> {
    let (mut body, mut length) = (Ok(body), 0_usize);
    let mut stream = stream.into_data_stream();
    loop {
        let Some(chunk) = stream.next().await else { break };
        let chunk = chunk.map_err(|error| unreadable(&error))?;
        length = length.saturating_add(chunk.len());
        if let Ok(bytes) = &mut body
            && let Err(failure) = bytes.push(&chunk, limit, admission)
        {
            body = Err(failure);
        }
        if length > limit.saturating_mul(2) {
            break;
        }
    }
    body
}

/// Returns the problem for a body that cannot be read. `TooSlow` may be the source of another error.
fn unreadable(error: &axum::Error) -> Failure {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(&TooSlow { bytes, seconds }) = error.downcast_ref() {
            return problem::body_stalled(bytes, seconds);
        }
        source = error.source();
    }
    problem::body_unreadable(&error.to_string())
}

/// Reads and discards the body of a rejected request: otherwise a client that is still sending would see a reset
/// connection instead of the problem. A client that waits for `100 Continue` sends nothing, so there is nothing to
/// read.
pub(crate) async fn discard(request: Request, limit: usize) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let (mut stream, mut length) = (request.into_body().into_data_stream(), 0_usize);
    while length <= limit {
        match stream.next().await {
            Some(Ok(chunk)) => length = length.saturating_add(chunk.len()),
            _ => return,
        }
    }
}

/// Discards the part of a rejected request's body that has arrived, without waiting for the rest. If that was not all,
/// the server closes the connection after the response.
pub(crate) async fn discard_arrived(request: Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let mut stream = request.into_body().into_data_stream();
    for _ in 0..MAX_ARRIVED_CHUNKS {
        match stream.next().now_or_never() {
            Some(Some(Ok(_))) => {}
            Some(_) => return,
            // The connection passes on a chunk only when its task runs again.
            None => tokio::task::yield_now().await,
        }
    }
}
