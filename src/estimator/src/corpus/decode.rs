//! Text files as streams of UTF-8: decompressed, without a byte-order mark, and decoded.

use std::fs::File;
use std::io::{BufReader, Cursor, Error, ErrorKind, Read, Result, Seek};
use std::path::Path;

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};
use flate2::read::MultiGzDecoder;

use crate::corpus::format::not_text;

/// The number of bytes that are decoded at once.
const CHUNK: usize = 64 * 1024;
/// The number of bytes at the start of a file that are inspected.
const HEAD: usize = 16;
/// The largest window of Zstandard, as a power of two. Some published corpora (`zstd --long=31`) need all of it.
const ZSTD_WINDOW_LOG: u32 = 31;

/// The compression of a file, which its first bytes identify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// Returns the compression of a file that begins with `head`; `None` if it is not compressed.
    fn of(head: &[u8]) -> Option<Self> {
        match *head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            // A skippable frame, which some parallel compressors write first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "Zstandard",
        }
    }

    /// Returns the compression that a file's extension means.
    fn from_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        let is = |name: &str| extension.eq_ignore_ascii_case(name);
        if is("gz") {
            Some(Self::Gzip)
        } else if is("zst") {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

type Bytes = Box<dyn Read + Send>;

/// Opens a file of text as a stream of valid UTF-8 without a byte-order mark. Line ends are not changed.
///
/// A byte-order mark determines the encoding, otherwise `encoding` does, otherwise it is UTF-8.
///
/// # Errors
/// A failure to read the file; a file that is damaged, not in its encoding, or not text. The errors do not name the
/// file.
pub(crate) fn open_text(path: &Path, encoding: Option<&'static Encoding>) -> Result<BufReader<Utf8Reader>> {
    let (bytes, _) = open(path)?;
    let (head, bytes) = peek(bytes)?;
    if let Some(description) = not_text(&head) {
        return Err(invalid(format!("the file is not text: it is {description}")));
    }
    if head.starts_with(&[0xff, 0xfe, 0, 0]) || head.starts_with(&[0, 0, 0xfe, 0xff]) {
        return Err(invalid("the encoding UTF-32 is not supported; convert the file to UTF-8 with iconv".to_owned()));
    }
    let marked = Encoding::for_bom(&head).map(|(encoding, _)| encoding);
    // Of the first two characters of UTF-16, one is usually ASCII, and so has a NUL byte.
    if marked.or(encoding).is_none() && head.iter().take(4).any(|byte| *byte == 0) {
        let reason = "the file begins with NUL bytes: it is binary, or UTF-16 without a byte-order mark; for UTF-16, \
                      set `encoding` to utf-16le or utf-16be";
        return Err(invalid(reason.to_owned()));
    }
    Ok(BufReader::new(Utf8Reader::new(bytes, marked.or(encoding).unwrap_or(UTF_8))))
}

/// Opens a file for random access. If it is compressed, decompresses it into a temporary file.
pub(crate) fn open_seekable(path: &Path) -> Result<File> {
    let (mut bytes, compressed) = open(path)?;
    if !compressed {
        return File::open(path);
    }
    let mut file = tempfile::tempfile()?;
    std::io::copy(&mut bytes, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// Opens a file and decompresses it. Returns `true` if the file is compressed.
fn open(path: &Path) -> Result<(Bytes, bool)> {
    let (head, bytes) = peek(Box::new(File::open(path)?))?;
    let compression = Compression::of(&head);
    if let Some(expected) = Compression::from_extension(path)
        && compression != Some(expected)
    {
        let name = expected.name();
        let reason =
            format!("the extension means {name}, but the content is not compressed with {name}; rename the file");
        return Err(invalid(reason));
    }
    let bytes: Bytes = match compression {
        None => return Ok((bytes, false)),
        Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(bytes)),
        Some(Compression::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::new(bytes)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    let name = compression.map_or("", Compression::name);
    Ok((Box::new(Decompressed { bytes, name }), true))
}

/// Reads the first bytes, and returns them and a reader that starts with them.
fn peek(mut bytes: Bytes) -> Result<(Vec<u8>, Bytes)> {
    let mut head = Vec::with_capacity(HEAD);
    bytes.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(bytes))))
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorKind::InvalidData, reason)
}

/// A decompressor whose errors name the compression.
struct Decompressed {
    bytes: Bytes,
    name: &'static str,
}

impl Read for Decompressed {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.bytes.read(buffer).map_err(|error| {
            Error::new(error.kind(), format!("the {} data is damaged or incomplete: {error}", self.name))
        })
    }
}

/// A reader that decodes to UTF-8, and removes a byte-order mark. It never returns malformed text.
pub(crate) struct Utf8Reader {
    bytes: Bytes,
    encoding: &'static Encoding,
    decoder: Decoder,
    /// Encoded bytes; `input[start..end]` are still to be decoded.
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// The number of bytes that have been decoded.
    offset: usize,
    /// `true` after the last byte is decoded.
    finished: bool,
    /// Decoded bytes; `output[given..]` are still to be returned.
    output: Vec<u8>,
    given: usize,
}

impl Utf8Reader {
    fn new(bytes: Bytes, encoding: &'static Encoding) -> Self {
        Self {
            bytes,
            encoding,
            decoder: encoding.new_decoder_with_bom_removal(),
            input: vec![0; CHUNK].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
            finished: false,
            output: Vec::new(),
            given: 0,
        }
    }

    /// Decodes some bytes into the empty output.
    fn decode(&mut self) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, self.bytes.read(&mut self.input)?);
        }
        let last = self.end == 0;
        self.output.resize(2 * CHUNK, 0);
        let input = &self.input[self.start..self.end];
        let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(input, &mut self.output, last);
        self.start += read;
        self.offset += read;
        (self.given, self.finished) = (0, last && result == DecoderResult::InputEmpty);
        self.output.truncate(written);
        match result {
            DecoderResult::Malformed(length, after) => {
                Err(self.malformed(self.offset.saturating_sub(usize::from(length) + usize::from(after))))
            }
            DecoderResult::InputEmpty | DecoderResult::OutputFull => Ok(()),
        }
    }

    /// Returns the error for a malformed sequence at this byte.
    fn malformed(&self, byte: usize) -> Error {
        let name = self.encoding.name();
        let advice =
            "convert the file with `iconv -f ENCODING -t UTF-8`, or set `encoding`, for example to windows-1252";
        invalid(format!("not valid {name} at byte {byte}; {advice}"))
    }
}

impl Read for Utf8Reader {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.given == self.output.len() && !self.finished {
            self.decode()?;
        }
        let mut rest = &self.output[self.given..];
        let count = rest.read(buffer)?;
        self.given += count;
        Ok(count)
    }
}

/// Reads all of a text file; see [`open_text`].
pub(crate) fn read_text(path: &Path, encoding: Option<&'static Encoding>) -> Result<String> {
    let mut text = String::new();
    open_text(path, encoding)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
