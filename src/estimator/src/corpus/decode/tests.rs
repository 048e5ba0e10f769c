//! Tests of decompressing and decoding files.

use std::io::Write;

use encoding_rs::{UTF_16BE, UTF_16LE, WINDOWS_1252};
use flate2::write::GzEncoder;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

fn utf16(text: &str, to_bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(to_bytes).collect()
}

fn read(name: &str, bytes: &[u8], encoding: Option<&'static Encoding>) -> std::result::Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read_text(&path, encoding).map_err(|error| error.to_string())
}

#[test]
fn byte_order_marks_are_removed_and_name_the_encoding() {
    let text = "naïve 😀\r\n\u{feff}end";
    let marked = format!("\u{feff}{text}");
    for bytes in [
        text.as_bytes().to_vec(),
        marked.as_bytes().to_vec(),
        utf16(&marked, u16::to_le_bytes),
        utf16(&marked, u16::to_be_bytes),
    ] {
        assert_eq!(read("a.txt", &bytes, None).unwrap(), text);
        assert_eq!(read("a.txt", &gzip(&bytes), None).unwrap(), text);
        // A mark takes precedence over the declared encoding.
        if bytes != text.as_bytes() {
            assert_eq!(read("a.txt", &bytes, Some(WINDOWS_1252)).unwrap(), text);
        }
    }
    assert_eq!(read("a.txt", b"", None).unwrap(), "");
    assert_eq!(read("a.txt", "\u{feff}".as_bytes(), None).unwrap(), "");
}

#[test]
fn declared_encodings_are_decoded() {
    assert_eq!(read("a.txt", b"caf\xe9 \x93x\x94", Some(WINDOWS_1252)).unwrap(), "café “x”");
    assert_eq!(read("a.txt", &utf16("été", u16::to_le_bytes), Some(UTF_16LE)).unwrap(), "été");
    assert_eq!(read("a.txt", &utf16("été", u16::to_be_bytes), Some(UTF_16BE)).unwrap(), "été");
}

#[test]
fn bytes_that_are_not_text_are_located() {
    let mut long = vec![b'a'; 3 * CHUNK - 1];
    long.extend("é".as_bytes());
    assert_eq!(read("a.txt", &long, None).unwrap().len(), 3 * CHUNK + 1);
    long.extend(b"\xe9bc");
    let error = read("a.txt", &long, None).unwrap_err();
    assert!(error.starts_with(&format!("not valid UTF-8 at byte {}; convert", 3 * CHUNK + 1)), "{error}");
    assert!(read("a.txt", b"ab\xc3", None).unwrap_err().starts_with("not valid UTF-8 at byte 2"));
    assert!(read("a.txt", b"\xff\xfea\0b", None).unwrap_err().starts_with("not valid UTF-16LE at byte 4"));
    for (bytes, reason) in [
        (utf16("plain", u16::to_le_bytes), "set `encoding` to utf-16le or utf-16be"),
        (utf16("plain", u16::to_be_bytes), "set `encoding` to utf-16le or utf-16be"),
        (b"\xff\xfe\0\0a\0\0\0".to_vec(), "UTF-32 is not supported"),
        (b"%PDF-1.7".to_vec(), "it is a PDF file"),
        (b"PK\x03\x04rest".to_vec(), "it is a ZIP archive"),
        (b"PAR1rest".to_vec(), "it is a Parquet file"),
        (gzip(&gzip(b"twice")), "compressed with gzip more than once"),
    ] {
        let error = read("a.txt", &bytes, None).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn compressed_files_are_read_whole() {
    let text = "one line of a text\n".repeat(20_000);
    let (first, rest) = text.as_bytes().split_at(100_000);
    for (name, compressed) in [("a.txt.gz", gzip as fn(&[u8]) -> Vec<u8>), ("A.TXT.ZST", zstd)] {
        assert_eq!(read(name, &compressed(text.as_bytes()), None).unwrap(), text);
        // A file may consist of several streams, and need not have the extension.
        let several = [compressed(first), compressed(rest)].concat();
        assert_eq!(read(name, &several, None).unwrap(), text);
        assert_eq!(read("a.txt", &several, None).unwrap(), text);
        let error = read(name, &several[..several.len() - 9], None).unwrap_err();
        assert!(error.contains("is damaged or incomplete"), "{error}");
        let error = read(name, text.as_bytes(), None).unwrap_err();
        assert!(error.contains("but the content is not compressed"), "{error}");
    }
    let skippable = [b"\x50\x2a\x4d\x18\x04\0\0\0abcd".to_vec(), zstd(text.as_bytes())].concat();
    assert_eq!(read("a.txt.zst", &skippable, None).unwrap(), text);
}
