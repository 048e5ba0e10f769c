//! Tests of reading texts from files of every format, whole and in pieces.

use parquet::basic::Compression;

use super::*;
use crate::corpus::rows::tests::parquet_bytes;

fn all(texts: &TextCorpus) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for text in texts.batches()?.collect::<Result<Vec<_>, _>>()?.concat() {
        match texts.words {
            Some(words) => found.extend(text.pieces(words).into_iter().map(|piece| piece.content)),
            None => found.push(text.content),
        }
    }
    assert_eq!(texts.count()?, found.len());
    assert_eq!(TextCorpus { sample: Some(3), ..texts.clone() }.count()?, 3);
    Ok(found)
}

#[test]
fn pieces_are_counted_by_text_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("texts.jsonl");
    std::fs::write(&path, "\"A b. C d. E f.\"\n\"A\"\n\"A b c.\"\n\"A b. C d.\"\n").unwrap();
    let texts = TextCorpus::of(vec![path]);
    let cut = TextCorpus { words: Some(2), ..texts.clone() };
    for (limit, expected) in [(usize::MAX, vec![3, 1, 2]), (2, vec![3, 1])] {
        assert_eq!(cut.pieces_of_texts(limit).unwrap(), expected);
    }
    assert_eq!(texts.pieces_of_texts(usize::MAX).unwrap(), [1; 4]);
}

#[test]
fn the_texts_of_a_folder_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for (name, bytes) in [
        ("b.txt", b"\xef\xbb\xbfwhole\r\n".to_vec()),
        ("sub/b.txt", b"below\n".to_vec()),
        ("c.jsonl", "{\"body\": \"one\"}\n\n{\"n\": 1, \"body\": \"twö\"}\n".into()),
        ("c.jsonl.zst", zstd::stream::encode_all(&b"{\"body\": \"three\"}"[..], 1).unwrap()),
        ("d.csv", b"id,body\n1,four\n".to_vec()),
        ("a.parquet", parquet_bytes(&[Some("a"), None, Some("last")], Compression::SNAPPY)),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let texts = TextCorpus { field: "body".to_owned(), ..TextCorpus::of(vec![dir.path().to_owned()]) };
    assert_eq!(all(&texts).unwrap(), ["a", "last", "whole\r\n", "one", "twö", "three", "four", "below\n"]);
}

#[test]
fn null_and_empty_texts_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("texts.jsonl");
    std::fs::write(&path, "{\"text\": null}\n{\"text\": \"\"}\n{\"text\": \"a b\"}\n{\"text\": \"a\"}\n\"\"\n")
        .unwrap();
    let texts = TextCorpus { min_words: Some(2), ..TextCorpus::of(vec![path.clone()]) };
    let mut batches = texts.batches().unwrap();
    let found = batches.next().unwrap().unwrap();
    assert_eq!((found.len(), found[0].content.as_str(), found[0].origin.row), (1, "a b", Some(2)));
    assert!(batches.next().is_none());
    let path = path.display().to_string();
    let omission = |reason: &str, texts| Omission { path: path.clone(), reason: reason.to_owned(), texts: Some(texts) };
    let expected = [omission("null", 1), omission("empty", 2), omission("fewer than 2 words", 1)];
    assert_eq!(batches.into_omissions(), expected);
}

#[test]
fn formats_and_encodings_can_be_declared() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), b"{\"text\": \"caf\xe9\"}").unwrap();
    let texts = TextCorpus {
        format: Some(Format::Jsonl),
        encoding: Some("latin1".to_owned()),
        ..TextCorpus::of(vec![dir.path().to_owned()])
    };
    assert_eq!(all(&texts).unwrap(), ["café"]);
    let unknown = TextCorpus { encoding: Some("latin-99".to_owned()), ..texts };
    let error = unknown.check().unwrap_err().to_string();
    assert!(error.starts_with("corpus.encoding is latin-99; it must be an encoding"), "{error}");
}

#[test]
fn errors_name_the_file_and_the_problem() {
    let dir = tempfile::tempdir().unwrap();
    let error = |name: &str, field: &str| {
        let texts = TextCorpus { field: field.to_owned(), ..TextCorpus::of(vec![dir.path().join(name)]) };
        let Err(Error::File { path, source }) = all(&texts) else { panic!("{name} was read") };
        assert!(path.ends_with(name));
        source.to_string()
    };
    std::fs::write(dir.path().join("lines.jsonl"), "{\"text\": \"a\"}\n{\"text\": 3}\n").unwrap();
    assert_eq!(error("lines.jsonl", "text"), "line 2: field `text` is a number; it must be a string");
    std::fs::write(dir.path().join("rows.parquet"), parquet_bytes(&[Some("a")], Compression::SNAPPY)).unwrap();
    assert!(error("rows.parquet", "text").contains("no column `text`; the columns are id, body"));
    assert!(error("rows.parquet", "id").contains("column `id` does not have one text per row"));
    std::fs::write(dir.path().join("not.parquet"), "not Parquet at all").unwrap();
    assert!(error("not.parquet", "text").contains("Parquet"));
    assert!(error("absent.txt", "text").contains("No such file"));
    assert!(error("a.pdf", "text").contains("PDF, is not supported"));
}

/// The batches of a large file hold a bounded number of bytes.
#[test]
fn large_files_are_read_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.jsonl.zst");
    let text = "word ".repeat(200_000);
    let line = serde_json::json!({ "text": text }).to_string() + "\n";
    std::fs::write(&path, zstd::stream::encode_all(line.repeat(30).as_bytes(), 1).unwrap()).unwrap();
    let texts = TextCorpus::of(vec![path]);
    let sizes: Vec<usize> = texts.batches().unwrap().map(|batch| batch.unwrap().len()).collect();
    assert_eq!(sizes, [9, 9, 9, 3]);
}

#[test]
fn short_texts_are_omitted_before_they_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("texts.jsonl");
    std::fs::write(&path, "{\"text\": \"One two.\"}\n{\"text\": \"One. Two, three. Four.\"}\n").unwrap();
    let texts = TextCorpus { min_words: Some(4), words: Some(1), ..TextCorpus::of(vec![path]) };
    assert_eq!(all(&texts).unwrap(), ["One.", "Two, three.", "Four."]);
}

#[test]
fn the_origin_of_a_piece_leads_back_to_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let lines = ["Ä one. Two.  Thrée four.\n\nFive.", "Six."];
    let json: String = lines.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/lines.jsonl"), json).unwrap();
    std::fs::write(dir.path().join("whole.txt"), " Seven. Eight.").unwrap();
    let files = vec![dir.path().join("sub"), dir.path().join("whole.txt")];
    let texts = TextCorpus { words: Some(1), ..TextCorpus::of(files) };
    let mut found = Vec::new();
    let whole: Vec<SelectedText> = texts.batches().unwrap().flat_map(Result::unwrap).collect();
    for SelectedText { content, origin } in whole.iter().flat_map(|text| text.pieces(1)) {
        let text = origin.row.map_or(" Seven. Eight.", |row| lines[row]);
        assert!(text[origin.byte..].starts_with(&content), "{content} {origin:?}");
        assert_eq!(text[..origin.byte].chars().count(), origin.character);
        found.push((content, origin.file.to_string()));
    }
    let expected = [
        ("Ä one.", "sub/lines.jsonl"),
        ("Two.", "sub/lines.jsonl"),
        ("Thrée four.", "sub/lines.jsonl"),
        ("Five.", "sub/lines.jsonl"),
        ("Six.", "sub/lines.jsonl"),
        ("Seven.", "whole.txt"),
        ("Eight.", "whole.txt"),
    ];
    assert_eq!(found, expected.map(|(content, file)| (content.to_owned(), file.to_owned())));
}
