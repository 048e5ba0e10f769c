//! A request's body, which is decoded and read within limits on size, memory and time.

use std::error::Error;
use std::ops::Deref;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::{FutureExt, StreamExt};

use super::decoder::Decoder;
use super::outline::Outline;
use crate::limits::admission::{Admission, Permit};
use crate::limits::client::Client;
use crate::limits::turns::{JobSize, Turns};
use crate::problem::{self, Failure};
use crate::transport::pace::TooSlow;

/// The maximum number of chunks of a rejected body to discard before the response.
const MAX_ARRIVED_CHUNKS: usize = 16;

/// The maximum number of bytes of a received chunk that are decoded on the reactor. Input that decodes to little counts
/// as more (see `Decoder::decode`).
const MAX_INLINE_DECODED_BYTES: usize = 64 * 1024;

/// The same for one turn on a blocking thread.
const TURN_BYTES: usize = 1024 * 1024;

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

/// The limits on a body, and the threads that decode large ones.
struct Limits<'a> {
    /// Maximum number of bytes, before and after decoding.
    bytes: usize,
    admission: &'a Admission,
    turns: &'a Turns,
}

impl IncomingBody {
    /// Decodes the next chunk. A blocking thread decodes most of a chunk that takes long.
    async fn push(mut self, chunk: Bytes, limits: &Limits<'_>) -> Result<Self, Failure> {
        self.received = self.received.saturating_add(chunk.len());
        if self.received > limits.bytes {
            return Err(problem::body_too_large(limits.bytes));
        }
        let mut progress = self.decode(&chunk, MAX_INLINE_DECODED_BYTES, limits.bytes, limits.admission)?;
        let mut done = 0;
        while let Some(read) = progress {
            done += read;
            let (chunk, limit, admission) = (chunk.slice(done..), limits.bytes, limits.admission.clone());
            let account = self.body.permit.account();
            let job = move || {
                let progress = self.decode(&chunk, TURN_BYTES, limit, &admission)?;
                Ok((self, progress))
            };
            (self, progress) = limits.turns.run(account, TURN_BYTES, job).await?;
        }
        Ok(self)
    }

    /// Decodes a part as [`Decoder::decode`] does. Counts the memory of the bytes and of the decoder.
    fn decode(
        &mut self,
        part: &[u8],
        max_cost: usize,
        limit: usize,
        admission: &Admission,
    ) -> Result<Option<usize>, Failure> {
        let body = &mut self.body;
        let progress = self.decoder.decode(part, max_cost, |decoded| body.push(decoded, limit, admission))?;
        let memory = self.decoder.memory();
        if memory > self.decoder_memory {
            admission.grow_body(&mut body.permit, memory - self.decoder_memory)?;
            self.decoder_memory = memory;
        }
        Ok(progress)
    }

    /// Ends the body, and releases the decoder.
    fn finish(self, limits: &Limits<'_>) -> Result<BodyBytes, Failure> {
        let (mut body, limit, admission) = (self.body, limits.bytes, limits.admission);
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
    turns: &Turns,
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
    let limits = Limits { bytes: limit, admission, turns };
    collect(incoming, request.into_body(), &limits).await?.finish(&limits)
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
async fn collect(body: IncomingBody, stream: Body, limits: &Limits<'_>) -> Result<IncomingBody, Failure> {
    let (mut body, mut length) = (Ok(body), 0_usize);
    let mut stream = stream.into_data_stream();
    loop {
        let Some(chunk) = stream.next().await else { break };
        let chunk = chunk.map_err(|error| unreadable(&error))?;
        length = length.saturating_add(chunk.len());
        body = match body {
            Ok(incoming) => incoming.push(chunk, limits).await,
            Err(failure) => Err(failure),
        };
        if length > limits.bytes.saturating_mul(2) {
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use axum::http::HeaderValue;

    use super::*;
    use crate::limits::config::ServerConfig;

    fn incoming(admission: &Admission, encoding: &'static str) -> IncomingBody {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
        let body = BodyBytes { bytes: Vec::new(), outline: Outline::default(), permit: admission.body_permit(1) };
        let decoder = Decoder::for_headers(&headers).unwrap();
        IncomingBody { body, decoder, decoder_memory: 0, received: 0 }
    }

    /// A chunk that expands to many bytes waits for its turn on another thread, so the connection's thread is free.
    #[tokio::test]
    async fn most_of_a_chunk_that_expands_is_decoded_in_turns() {
        let (admission, turns) = (Admission::new(&ServerConfig::default()), Turns::new(2, 1 << 30));
        let limits = Limits { bytes: 64 << 20, admission: &admission, turns: &turns };
        let spaces = |length: usize| vec![b' '; length];
        let gzip = |length| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &spaces(length)).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |length| zstd::encode_all(spaces(length).as_slice(), 1).unwrap();
        for (encoding, small, large) in [
            ("gzip", gzip(1000), gzip(5 << 20)),
            ("zstd", zstd(1000), zstd(5 << 20)),
            ("identity", spaces(1000), spaces(5 << 20)),
        ] {
            let busy = [turns.take(1, 1).await, turns.take(1, 1).await];
            let decoded = incoming(&admission, encoding).push(small.into(), &limits).await.unwrap();
            assert_eq!(decoded.finish(&limits).unwrap().len(), 1000, "{encoding}");
            let mut decoded = pin!(incoming(&admission, encoding).push(large.into(), &limits));
            let first = decoded.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let decoded = match first {
                Poll::Ready(decoded) => {
                    assert_eq!(encoding, "identity");
                    decoded
                }
                Poll::Pending => {
                    // With the memory of the decoder.
                    assert!(admission.body_bytes() < 2 << 20, "{encoding}: {} bytes", admission.body_bytes());
                    drop(busy);
                    decoded.await
                }
            };
            assert_eq!(decoded.unwrap().finish(&limits).unwrap().len(), 5 << 20, "{encoding}");
        }
    }

    /// Members, frames and blocks without content decode to nothing, but take time.
    #[tokio::test]
    async fn most_of_a_chunk_without_content_is_decoded_in_turns() {
        let (admission, turns) = (Admission::new(&ServerConfig::default()), Turns::new(2, 1 << 30));
        let limits = Limits { bytes: 64 << 20, admission: &admission, turns: &turns };
        let member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()).finish().unwrap();
        // A member's head, empty stored blocks of which the last is marked, and a checksum and a length of 0.
        let blocks = [&member[..10], &[0, 0, 0, 0xff, 0xff].repeat(13_000), &[1, 0, 0, 0xff, 0xff], &[0; 8]].concat();
        let frame = zstd::encode_all([].as_slice(), 1).unwrap();
        for (encoding, chunk) in
            [("gzip", member.repeat(3000)), ("gzip", blocks), ("zstd", frame.repeat(64 * 1024 / frame.len()))]
        {
            let busy = [turns.take(1, 1).await, turns.take(1, 1).await];
            let mut decoded = pin!(incoming(&admission, encoding).push(chunk.into(), &limits));
            assert!(decoded.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "{encoding}");
            drop(busy);
            assert_eq!(decoded.await.unwrap().finish(&limits).unwrap().len(), 0, "{encoding}");
        }
    }
}
