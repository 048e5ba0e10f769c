//! Tests of reading texts from files of every format: whole, in pieces and sampled.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

fn all(texts: &TextCorpus) -> Result<Vec<String>, Error> {
    let found: Vec<String> = texts.batches(1)?.collect::<Result<Vec<_>, _>>()?.concat();
    assert_eq!(texts.count()?, texts.sample.unwrap_or(found.len()));
    Ok(found)
}

/// Writes a Parquet file like those of published data sets: several row groups, a numeric column, and nulls among the
/// texts.
fn write_parquet(path: &Path, texts: &[Option<&str>], compression: Compression) {
    let schema = parse_message_type("message s { required int32 id; optional binary body (UTF8); }").unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap();
    for chunk in texts.chunks(300) {
        let mut group = writer.next_row_group().unwrap();
        let ids: Vec<i32> = (0..chunk.len() as i32).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<parquet::data_type::Int32Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let levels: Vec<i16> = chunk.iter().map(|text| text.is_some().into()).collect();
        let values: Vec<ByteArray> = chunk.iter().flatten().map(|&text| text.into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn the_texts_of_a_folder_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b.txt"), "whole\n").unwrap();
    std::fs::write(dir.path().join("c.jsonl"), "{\"body\": \"one\"}\n\n{\"n\": 1, \"body\": \"twö\"}\n").unwrap();
    std::fs::write(dir.path().join("d.csv"), "not read").unwrap();
    for (name, compression) in [("a", Compression::SNAPPY), ("e", Compression::ZSTD(Default::default()))] {
        write_parquet(&dir.path().join(format!("{name}.parquet")), &[Some(name), None, Some("last")], compression);
    }
    let texts = TextCorpus { field: "body".to_owned(), ..TextCorpus::of(vec![dir.path().to_owned()]) };
    assert_eq!(all(&texts).unwrap(), ["a", "last", "whole\n", "one", "twö", "e", "last"]);
}

#[test]
fn a_folder_without_texts_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.csv"), "not read").unwrap();
    let error = TextCorpus::of(vec![dir.path().to_owned()]).count().unwrap_err().to_string();
    assert!(error.contains("no .txt, .jsonl or .parquet file"), "{error}");
    assert!(error.starts_with(dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn long_columns_are_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.parquet");
    let numbers: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    let rows: Vec<Option<&str>> =
        numbers.iter().enumerate().map(|(i, text)| (i % 7 != 0).then_some(text.as_str())).collect();
    write_parquet(&path, &rows, Compression::SNAPPY);
    let texts = TextCorpus { field: "body".to_owned(), ..TextCorpus::of(vec![path]) };
    let expected: Vec<&str> = rows.iter().flatten().copied().collect();
    assert_eq!(all(&texts).unwrap(), expected);
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
    assert_eq!(error("lines.jsonl", "text"), "line 2: field `text` is missing or not a string");
    std::fs::write(dir.path().join("broken.jsonl"), "{\"text\": \n").unwrap();
    assert!(error("broken.jsonl", "text").starts_with("line 1: EOF"));
    write_parquet(&dir.path().join("rows.parquet"), &[Some("a")], Compression::SNAPPY);
    assert!(error("rows.parquet", "text").contains("no column `text`; the columns are id, body"));
    assert!(error("rows.parquet", "id").contains("column `id` does not have one text per row"));
    std::fs::write(dir.path().join("not.parquet"), "not Parquet at all").unwrap();
    assert!(!error("not.parquet", "text").is_empty());
    assert!(!error("absent.txt", "text").is_empty());
}

#[test]
fn short_texts_are_left_out_before_they_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("texts.jsonl");
    std::fs::write(&path, "{\"text\": \"One two.\"}\n{\"text\": \"One. Two, three. Four.\"}\n").unwrap();
    let texts = TextCorpus { min_words: Some(4), words: Some(1), ..TextCorpus::of(vec![path]) };
    assert_eq!(all(&texts).unwrap(), ["One.", "Two, three.", "Four."]);
}

#[test]
fn a_sample_is_seeded_and_fair() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("numbers.jsonl");
    std::fs::write(&path, (0..20).map(|i| format!("{{\"text\": \"{i}\"}}\n")).collect::<String>()).unwrap();
    let texts = TextCorpus { sample: Some(5), ..TextCorpus::of(vec![path]) };
    let sample = |seed| {
        let found: Vec<usize> =
            texts.batches(seed).unwrap().flat_map(Result::unwrap).map(|text| text.parse().unwrap()).collect();
        assert!(found.len() == 5 && found.is_sorted());
        found
    };
    assert_eq!(sample(3), sample(3));
    let mut times = [0; 20];
    (0..2000).flat_map(sample).for_each(|text| times[text] += 1);
    // The expected count is 500, with a standard deviation of 19.4.
    assert!(times.iter().all(|time| (420..580).contains(time)), "{times:?}");
}
