//! Decoders of compressed bodies, which decode piece by piece and take little memory.

use std::io::Write;

use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderValue};
use flate2::write::MultiGzDecoder;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use crate::problem::{self, Failure};

/// The base-2 logarithm of the largest window of a zstd frame: 8 MiB, as RFC 9659 requires.
const MAX_WINDOW_LOG: u32 = 23;

/// The maximum number of bytes that are decoded at a time.
const PIECE_BYTES: usize = 32 * 1024;

/// The maximum number of bytes of the input that one step reads.
const STEP_BYTES: usize = 1024;

/// The minimum cost of a step. Members, frames and blocks without content take time, but decode to nothing.
const MIN_STEP_COST: usize = 1024;

/// The minimum cost of a byte of the input. Tables take up to about this many times as long as content.
const INPUT_COST: usize = 8;

/// Memory of a gzip decoder, in bytes: a window, a piece and tables.
const GZIP_BYTES: usize = 96 * 1024;

/// The error of zstd for a frame whose window is too large.
const WINDOW_TOO_LARGE: &str = "Frame requires too much memory for decoding";

/// A decoder of one body.
pub(super) enum Decoder {
    Identity,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zstd {
        context: Box<DCtx<'static>>,
        /// The last decoded piece.
        piece: Vec<u8>,
        /// `true` between two frames.
        is_complete: bool,
    },
}

/// The progress of one step.
struct Step {
    /// Number of bytes of the input that were read.
    read: usize,
    /// Number of bytes that were decoded.
    decoded: usize,
    /// `true` if all of the input is decoded.
    is_last: bool,
}

impl Step {
    /// Returns a measure of the step's time, in decoded bytes.
    fn cost(&self) -> usize {
        self.decoded.max(INPUT_COST * self.read).max(MIN_STEP_COST)
    }
}

impl Decoder {
    /// Returns the decoder for the `Content-Encoding` of a request.
    pub(super) fn for_headers(headers: &HeaderMap) -> Result<Self, Failure> {
        let encoding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes).unwrap_or_default().trim_ascii();
        let is = |name: &str| encoding.eq_ignore_ascii_case(name.as_bytes());
        if encoding.is_empty() || is("identity") {
            Ok(Self::Identity)
        } else if is("gzip") {
            Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))))
        } else if is("zstd") {
            Self::zstd()
        } else {
            Err(problem::unsupported_encoding(&String::from_utf8_lossy(encoding)))
        }
    }

    fn zstd() -> Result<Self, Failure> {
        let mut context = DCtx::try_create().ok_or_else(problem::internal)?;
        context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(zstd_failed)?;
        Ok(Self::Zstd { context: Box::new(context), piece: vec![0; PIECE_BYTES], is_complete: true })
    }

    /// Returns the decoder's memory, in bytes.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip(_) => GZIP_BYTES,
            Self::Zstd { context, .. } => context.sizeof() + PIECE_BYTES,
        }
    }

    /// Decodes a part of a body until it ends, or until the steps have cost at least `max_cost`. Each decoded byte
    /// costs 1, and steps that decode little cost a minimum. Passes each decoded piece to `receive`, and stops at its
    /// first failure. Returns `None` if the part is done, and otherwise the number of its bytes that were read;
    /// decoding continues after these.
    pub(super) fn decode(
        &mut self,
        part: &[u8],
        max_cost: usize,
        mut receive: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Option<usize>, Failure> {
        let (mut read, mut cost) = (0, 0);
        loop {
            let input = &part[read..part.len().min(read + STEP_BYTES)];
            let step = match self {
                Self::Identity => return receive(part).map(|()| None),
                Self::Gzip(decoder) => write_gzip(decoder, input, &mut receive)?,
                Self::Zstd { context, piece, is_complete } => {
                    let step = decompress_zstd(context, input, piece, is_complete)?;
                    receive(&piece[..step.decoded])?;
                    step
                }
            };
            read += step.read;
            cost += step.cost();
            if step.is_last && read == part.len() {
                return Ok(None);
            }
            if cost >= max_cost {
                return Ok(Some(read));
            }
        }
    }

    /// Ends the body. Fails if a part of it is missing.
    pub(super) fn finish(self, mut receive: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        match self {
            Self::Identity | Self::Zstd { is_complete: true, .. } => Ok(()),
            Self::Gzip(mut decoder) => {
                decoder.try_finish().map_err(|error| problem::body_unreadable(&error.to_string()))?;
                receive_piece(decoder.get_mut(), &mut receive)
            }
            Self::Zstd { .. } => Err(problem::body_unreadable("the last zstd frame is incomplete")),
        }
    }
}

/// Decodes at most one piece of a gzip stream.
fn write_gzip(
    decoder: &mut MultiGzDecoder<Vec<u8>>,
    input: &[u8],
    receive: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<Step, Failure> {
    if input.is_empty() {
        return Ok(Step { read: 0, decoded: 0, is_last: true });
    }
    let read = decoder.write(input).map_err(|error| problem::body_unreadable(&error.to_string()))?;
    if read == 0 {
        return Err(problem::body_unreadable("the gzip stream is corrupt"));
    }
    let decoded = decoder.get_ref().len();
    receive_piece(decoder.get_mut(), receive)?;
    Ok(Step { read, decoded, is_last: read == input.len() })
}

/// Decodes at most one piece of a zstd stream. A frame may have more to decode when all of its input is read.
fn decompress_zstd(
    context: &mut DCtx<'static>,
    input: &[u8],
    piece: &mut [u8],
    is_complete: &mut bool,
) -> Result<Step, Failure> {
    let (mut buffer, mut output) = (InBuffer::around(input), OutBuffer::around(piece));
    let hint = context.decompress_stream(&mut output, &mut buffer).map_err(zstd_failed)?;
    let (read, decoded) = (buffer.pos(), output.pos());
    // At the end of the input, a call that decodes nothing says nothing about the frame.
    if !input.is_empty() || decoded > 0 {
        *is_complete = hint == 0;
    }
    Ok(Step { read, decoded, is_last: read == input.len() && decoded < PIECE_BYTES })
}

/// Passes on the decoder's output.
fn receive_piece(written: &mut Vec<u8>, receive: &mut impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let received = receive(written);
    written.clear();
    received
}

fn zstd_failed(code: usize) -> Failure {
    match get_error_name(code) {
        WINDOW_TOO_LARGE => problem::window_too_large(1 << MAX_WINDOW_LOG),
        reason => problem::body_unreadable(reason),
    }
}
