//! Tests of reading rows: the same texts through every format, compression and encoding, and errors that name the row.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{BrotliLevel, Compression, GzipLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Writes a Parquet file like those of published data sets: several row groups, a numeric column, and nulls among the
/// texts.
pub(crate) fn parquet_bytes(texts: &[Option<&str>], compression: Compression) -> Vec<u8> {
    let schema = parse_message_type("message s { required int32 id; optional binary body (UTF8); }").unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties)).unwrap();
    for chunk in texts.chunks(300) {
        let mut group = writer.next_row_group().unwrap();
        let ids: Vec<i32> = (0..chunk.len() as i32).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let levels: Vec<i16> = chunk.iter().map(|text| text.is_some().into()).collect();
        let values: Vec<ByteArray> = chunk.iter().flatten().map(|&text| text.into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

fn separated(texts: &[String], delimiter: char, end: &str) -> String {
    let mut file = format!("id{delimiter}body{end}");
    for (id, text) in texts.iter().enumerate() {
        file += &format!("{id}{delimiter}\"{}\"{end}", text.replace('"', "\"\""));
    }
    file
}

/// Returns the texts in every format that can hold several texts.
fn text_formats(texts: &[String]) -> Vec<(&'static str, String)> {
    let objects: Vec<_> = texts.iter().enumerate().map(|(id, text)| json!({"id": id, "body": text})).collect();
    let joined = |separator: &str| objects.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator);
    vec![
        ("a.jsonl", joined("\n")),
        ("a.ndjson", joined("\r\n\r\n") + "\r\n"),
        ("strings.jsonl", texts.iter().map(|text| json!(text).to_string() + "\n").collect()),
        ("array.json", serde_json::to_string_pretty(&objects).unwrap()),
        ("strings.json", json!(texts).to_string() + "\n"),
        ("sequence.json", joined("\n")),
        ("joined.json", joined("")),
        ("a.csv", separated(texts, ',', "\n")),
        ("windows.csv", separated(texts, ',', "\r\n")),
        ("a.tsv", separated(texts, '\t', "\n")),
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn utf16(text: &str) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect()
}

fn read(dir: &Path, name: &str, bytes: &[u8]) -> std::result::Result<Vec<Option<String>>, String> {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    let [file] = &crate::corpus::files::CorpusFiles::list(&[path], None).unwrap().files[..] else { panic!("{name}") };
    let rows = open_rows(file, "body", None).and_then(Iterator::collect);
    rows.map_err(|error: Error| error.to_string())
}

/// Every compression of Parquet that is supported.
fn parquet_compressions() -> [Compression; 7] {
    [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(Default::default()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_format_gives_the_same_texts(
        texts in prop::collection::vec("([ -~]|[\\r\\n\\t\",;]|[À-ÿ]|\\PC|\u{feff}|😀|東京|e\u{301}|\0){0,40}", 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let expected: std::result::Result<Vec<Option<String>>, String> = Ok(texts.iter().cloned().map(Some).collect());
        for (name, content) in text_formats(&texts) {
            let marked = format!("\u{feff}{content}");
            for bytes in [content.as_bytes(), marked.as_bytes(), &utf16(&content)] {
                prop_assert_eq!(&read(dir.path(), name, bytes), &expected, "{}", name);
                prop_assert_eq!(&read(dir.path(), &format!("{name}.gz"), &gzip(bytes)), &expected, "{}.gz", name);
                let zstd = zstd::stream::encode_all(bytes, 1).unwrap();
                prop_assert_eq!(&read(dir.path(), &format!("{name}.zst"), &zstd), &expected, "{}.zst", name);
            }
        }
        let rows: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
        for compression in parquet_compressions() {
            let bytes = parquet_bytes(&rows, compression);
            prop_assert_eq!(&read(dir.path(), "a.parquet", &bytes), &expected, "{:?}", compression);
            prop_assert_eq!(&read(dir.path(), "a.parquet.gz", &gzip(&bytes)), &expected);
        }
        for text in &texts {
            let marked = format!("\u{feff}{text}");
            for bytes in [marked.as_bytes(), &utf16(text), &gzip(marked.as_bytes())] {
                prop_assert_eq!(read(dir.path(), "a.txt", bytes), Ok(vec![Some(text.clone())]));
            }
        }
    }
}

#[test]
fn nulls_are_distinguished_from_texts() {
    let dir = tempfile::tempdir().unwrap();
    let expected = Ok(vec![None, Some(String::new()), Some("x".to_owned())]);
    let objects = [json!({"body": null}), json!({"body": ""}), json!({"body": "x"})];
    let lines: String = objects.iter().map(|row| format!("{row}\n")).collect();
    assert_eq!(read(dir.path(), "a.jsonl", lines.as_bytes()), expected);
    assert_eq!(read(dir.path(), "a.json", json!(objects).to_string().as_bytes()), expected);
    let rows: Vec<Option<&str>> = (0..1000).map(|row| (row % 7 != 0).then_some("x")).collect();
    let found = read(dir.path(), "a.parquet", &parquet_bytes(&rows, Compression::SNAPPY)).unwrap();
    assert_eq!(found, rows.iter().map(|row| row.map(str::to_owned)).collect::<Vec<_>>());
}

#[test]
fn csv_needs_no_quotes_and_skips_blank_lines() {
    let dir = tempfile::tempdir().unwrap();
    let some = |texts: &[&str]| Ok(texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>());
    let file = "id,body\r\n1,one \"quoted\" word\r\n\r\n2,\r\n3,\"a\r\nb\"\r\n4,last";
    assert_eq!(read(dir.path(), "a.csv", file.as_bytes()), some(&["one \"quoted\" word", "", "a\r\nb", "last"]));
    assert_eq!(read(dir.path(), "one.csv", b"body\nx\n\ny\n"), some(&["x", "", "y"]));
    assert_eq!(read(dir.path(), "a.tsv", b"body\tid\na,b\t1\n"), some(&["a,b"]));
    assert_eq!(read(dir.path(), "header.csv", b"body"), some(&[]));
    assert_eq!(read(dir.path(), "empty.csv", b""), some(&[]));
    assert_eq!(read(dir.path(), "empty.json", b" \n"), some(&[]));
    assert_eq!(read(dir.path(), "none.json", b"[ ]\n"), some(&[]));
}

#[test]
fn errors_state_the_line_or_row() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content, expected) in [
        (
            "a.jsonl",
            "{\"body\": \"x\"}\n\n{\"id\": 1, \"text\": \"\"}",
            "line 3: no field `body`; the fields are id, text",
        ),
        ("a.jsonl", "{\"body\": 3}", "line 1: field `body` is a number; it must be a string"),
        ("a.jsonl", "{}", "line 1: no field `body`; the fields are none"),
        ("a.jsonl", "\n{\"body\": \n", "line 2: EOF while parsing a value at column "),
        ("a.jsonl", "[\n{\"body\": \"x\"}]", "line 1: EOF while parsing"),
        ("a.jsonl", "[{\"body\": \"x\"}]", "line 1: expected an object or a string, got an array; if the file is one"),
        ("a.json", "[\n{\"body\":\n\"x\"},\n{\"a\":\n1}]", "line 4: no field `body`; the fields are a"),
        ("a.json", "[\n{\"body\":\n\"x\"},\n{\"body\":\n1?}]", "line 5: expected `,` or `}` at column 2"),
        ("a.json", "[{\"body\": \"x\"}\n", "line 2: the file ends within the array"),
        ("a.json", "[{\"body\": \"x\"}\n{", "line 2: expected `,` or `]`"),
        ("a.json", "[{\"body\": \"x\"},\n]", "line 2: expected value"),
        ("a.json", "[]\n1", "line 2: expected the end of the file"),
        ("a.json", "{\"data\": [{\"body\": \"x\"}]}", "line 1: no field `body`; the fields are data"),
        ("a.json", "[\n3]", "line 2: expected an object or a string, got a number"),
        ("a.csv", "id;body\n", "line 1: no column `body`; the columns are id;body"),
        ("a.csv", "body,body\n", "line 1: there are several columns `body`"),
        ("a.csv", "id,body\n1,x\n2,a,b\n", "line 3: expected 2 fields, as in the header, got 3"),
        ("a.csv", "id,body\n1,\"x\ny\"z\n", "line 3: text follows the quote that ends a field"),
        ("a.csv", "id,body\n1,x\n2,\"x\n3,y\n", "line 3: the file ends within a quoted field"),
    ] {
        let error = read(dir.path(), name, content.as_bytes()).unwrap_err();
        assert!(error.starts_with(expected), "{content}: {error}");
    }
    let error = read(dir.path(), "a.jsonl", b"{\"body\": \"x\"}\n{\"body\": \"\xe9\"}\n").unwrap_err();
    assert!(error.starts_with("not valid UTF-8 at byte 24"), "{error}");
    let wide = format!("{},{}\n", "x".repeat(60), (0..30).map(|i| i.to_string()).collect::<Vec<_>>().join(","));
    let error = read(dir.path(), "a.csv", wide.as_bytes()).unwrap_err();
    assert!(error.contains(&format!(" {}..., 0, 1,", "x".repeat(40))) && error.ends_with("18, ..."), "{error}");
}

#[test]
fn a_text_that_is_not_utf8_is_located_in_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = parquet_bytes(&[Some("one"), None, Some("needle")], Compression::UNCOMPRESSED);
    let at = bytes.windows(6).position(|window| window == b"needle").unwrap();
    let mut broken = bytes.clone();
    // All copies: the value, and those in statistics.
    for at in (at..bytes.len() - 6).filter(|&at| &bytes[at..at + 6] == b"needle") {
        broken[at] = 0xff;
    }
    let error = read(dir.path(), "a.parquet", &broken).unwrap_err();
    assert_eq!(error, "row 3: the text is not valid UTF-8");
    let error = read(dir.path(), "cut.parquet", &bytes[..bytes.len() - 3]).unwrap_err();
    assert!(error.contains("Parquet"), "{error}");
}
