//! Texts out of files: plain, JSON lines or Parquet, whole or in pieces of sentences, all or a seeded sample.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use crate::corpus::windows::Spacing;
use crate::error::Error;

/// Rows of a Parquet file that are read at once.
const ROWS: usize = 256;

/// Texts that are in memory at a time.
type Batches<'a> = Box<dyn Iterator<Item = Result<Vec<String>, Error>> + Send + 'a>;

/// A corpus of texts in files, and what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// Files, or folders that stand for the `.txt`, `.jsonl` and `.parquet` files in them; relative to the experiment file's
    /// folder. A `.jsonl` file has a text a line, a `.parquet` file a text a row, any other is one text, in UTF-8.
    pub files: Vec<PathBuf>,
    /// The field of a line, or the column, that holds the text.
    #[serde(default = "field")]
    pub field: String,
    /// Leaves out texts of fewer words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_words: Option<usize>,
    /// Cuts each text into pieces, each of as few sentences (Unicode Standard Annex 29) as have this many words; what is left at
    /// a text's end is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<usize>,
    /// Takes so many texts, or pieces, at random, by the experiment's seed. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    /// Windows taken from each text, none overlapping.
    #[serde(default = "windows")]
    pub windows: usize,
    /// Where in the text they lie.
    #[serde(default)]
    pub spacing: Spacing,
    /// Leave out texts too short for their windows, rather than fail.
    #[serde(default)]
    pub skip_short: bool,
    /// A `tokenizer.json` of Hugging Face's. None: the model's server tokenises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
}

fn field() -> String {
    "text".to_owned()
}

fn windows() -> usize {
    40
}

impl Texts {
    /// All of these files, forty windows from each.
    pub fn of(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            field: field(),
            min_words: None,
            words: None,
            sample: None,
            windows: windows(),
            spacing: Spacing::default(),
            skip_short: false,
            tokenizer: None,
        }
    }

    /// Whether the numbers can be meant.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.files.is_empty() {
            return Err(Error::invalid("corpus.files", "empty", "at least one file or folder"));
        }
        let numbers = [("windows", Some(self.windows)), ("words", self.words), ("sample", self.sample)];
        match numbers.iter().find(|number| number.1 == Some(0)) {
            Some((key, _)) => {
                Err(Error::invalid("corpus", format!("with {key} = 0"), format!("with {key} of at least 1")))
            }
            None => Ok(()),
        }
    }

    /// Puts the experiment file's folder before all paths.
    pub(crate) fn relative_to(&mut self, folder: &Path) {
        self.files.iter_mut().chain(&mut self.tokenizer).for_each(|file| *file = folder.join(&*file));
    }

    /// Leaves of all paths their last part.
    pub(crate) fn without_folders(&mut self) {
        for file in self.files.iter_mut().chain(&mut self.tokenizer) {
            *file = file.file_name().map(PathBuf::from).unwrap_or_default();
        }
    }

    /// The files, those of a folder by name.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for path in &self.files {
            if path.is_dir() {
                let failed = |source| Error::File { path: path.clone(), source };
                let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
                let mut files: Vec<PathBuf> = entries.map_err(failed)?.iter().map(std::fs::DirEntry::path).collect();
                files.retain(|file| ["txt", "jsonl", "parquet"].iter().any(|kind| is(file, kind)));
                if files.is_empty() {
                    let none = "there is no .txt, .jsonl or .parquet file in this folder";
                    return Err(failed(std::io::Error::other(none)));
                }
                files.sort_unstable();
                found.append(&mut files);
            } else {
                found.push(path.clone());
            }
        }
        Ok(found)
    }

    /// How many texts there are at most: those to be sampled, or as many as the files hold.
    pub(crate) fn count(&self) -> Result<usize, Error> {
        if let Some(sample) = self.sample {
            return Ok(sample);
        }
        let one_each = self.words.is_none() && self.min_words.is_none();
        let mut count = 0;
        for path in self.paths()? {
            if one_each && !is(&path, "jsonl") && !is(&path, "parquet") {
                count += 1;
            } else {
                self.read(&path, |_| count += 1)?;
            }
        }
        Ok(count)
    }

    /// The texts in the files' order, those of a file at a time; or the sample of them, at once.
    pub(crate) fn batches(&self, seed: u64) -> Result<Batches<'_>, Error> {
        let paths = self.paths()?;
        let whole = |path: PathBuf| {
            let mut texts = Vec::new();
            self.read(&path, |text| texts.push(text.to_owned()))?;
            Ok(texts)
        };
        Ok(match self.sample {
            None => Box::new(paths.into_iter().map(whole)),
            Some(sample) => Box::new(std::iter::once(self.sampled(&paths, sample, seed))),
        })
    }

    /// Each text with the same probability: Algorithm R (Vitter 1985).
    fn sampled(&self, paths: &[PathBuf], sample: usize, seed: u64) -> Result<Vec<String>, Error> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut reservoir: Vec<(usize, String)> = Vec::new();
        let mut seen = 0;
        for path in paths {
            self.read(path, |text| {
                if seen < sample {
                    reservoir.push((seen, text.to_owned()));
                } else if let Some(place) = reservoir.get_mut(rng.random_range(0..=seen)) {
                    *place = (seen, text.to_owned());
                }
                seen += 1;
            })?;
        }
        reservoir.sort_unstable_by_key(|&(at, _)| at);
        Ok(reservoir.into_iter().map(|(_, text)| text).collect())
    }

    /// Gives the texts of one file, in pieces where they are to be.
    fn read(&self, path: &Path, mut give: impl FnMut(&str)) -> Result<(), Error> {
        let long_enough =
            |text: &str| self.min_words.is_none_or(|least| text.unicode_words().take(least).count() == least);
        let mut give = |text: &str| match self.words {
            _ if !long_enough(text) => {}
            Some(words) => pieces(text, words, &mut give),
            None => give(text),
        };
        let read = if is(path, "jsonl") {
            lines(path, &self.field, &mut give)
        } else if is(path, "parquet") {
            rows(path, &self.field, &mut give).map_err(std::io::Error::other)
        } else {
            std::fs::read_to_string(path).map(|text| give(&text))
        };
        read.map_err(|source| Error::File { path: path.to_owned(), source })
    }
}

fn is(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(kind))
}

/// A text a line, in a field of its object. Empty lines are none.
fn lines(path: &Path, field: &str, give: &mut impl FnMut(&str)) -> std::io::Result<()> {
    for (index, line) in BufReader::new(File::open(path)?).lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |reason: String| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("line {}: {reason}", index + 1))
        };
        let object: serde_json::Value = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        let text = object.get(field).and_then(serde_json::Value::as_str);
        give(text.ok_or_else(|| wrong(format!("there is no text in the field {field}")))?);
    }
    Ok(())
}

/// A text a row, in one column. Rows without are none.
fn rows(path: &Path, column: &str, give: &mut impl FnMut(&str)) -> Result<(), ParquetError> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let is_asked = |found: &&std::sync::Arc<parquet::schema::types::ColumnDescriptor>| found.path().string() == column;
    let Some((index, found)) = schema.columns().iter().enumerate().find(|(_, found)| is_asked(found)) else {
        let names: Vec<String> = schema.columns().iter().map(|found| found.path().string()).collect();
        return Err(ParquetError::General(format!("there is no column {column} among {}", names.join(", "))));
    };
    if found.physical_type() != parquet::basic::Type::BYTE_ARRAY || found.max_rep_level() > 0 {
        return Err(ParquetError::General(format!("column {column} does not hold a text a row")));
    }
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        let mut column = get_typed_column_reader::<ByteArrayType>(group.get_column_reader(index)?);
        let (mut texts, mut levels): (Vec<ByteArray>, Vec<i16>) = (Vec::new(), Vec::new());
        while column.read_records(ROWS, Some(&mut levels), None, &mut texts)?.0 > 0 {
            levels.clear();
            for text in texts.drain(..) {
                give(text.as_utf8()?);
            }
        }
    }
    Ok(())
}

/// Pieces of as few whole sentences as have `words` words, from the text's beginning.
fn pieces(text: &str, words: usize, give: &mut impl FnMut(&str)) {
    let (mut start, mut end, mut count) = (0, 0, 0);
    for sentence in text.split_sentence_bounds() {
        end += sentence.len();
        count += sentence.unicode_words().count();
        if count >= words {
            give(text[start..end].trim());
            (start, count) = (end, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use proptest::prelude::*;

    use super::*;

    fn all(texts: &Texts) -> Result<Vec<String>, Error> {
        let found: Vec<String> = texts.batches(1)?.collect::<Result<Vec<_>, _>>()?.concat();
        assert_eq!(texts.count()?, texts.sample.unwrap_or(found.len()));
        Ok(found)
    }

    /// A Parquet file as data sets are published: groups of rows, a column of numbers, nulls among the texts.
    fn write(path: &Path, texts: &[Option<&str>], compression: Compression) {
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
    fn a_folder_gives_its_texts_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.txt"), "whole\n").unwrap();
        std::fs::write(dir.path().join("c.jsonl"), "{\"body\": \"one\"}\n\n{\"n\": 1, \"body\": \"twö\"}\n").unwrap();
        std::fs::write(dir.path().join("d.csv"), "not read").unwrap();
        for (name, compression) in [("a", Compression::SNAPPY), ("e", Compression::ZSTD(Default::default()))] {
            write(&dir.path().join(format!("{name}.parquet")), &[Some(name), None, Some("last")], compression);
        }
        let texts = Texts { field: "body".to_owned(), ..Texts::of(vec![dir.path().to_owned()]) };
        assert_eq!(all(&texts).unwrap(), ["a", "last", "whole\n", "one", "twö", "e", "last"]);
    }

    #[test]
    fn a_folder_without_texts_is_said_to_have_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("d.csv"), "not read").unwrap();
        let error = Texts::of(vec![dir.path().to_owned()]).count().unwrap_err().to_string();
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
        write(&path, &rows, Compression::SNAPPY);
        let texts = Texts { field: "body".to_owned(), ..Texts::of(vec![path]) };
        let expected: Vec<&str> = rows.iter().flatten().copied().collect();
        assert_eq!(all(&texts).unwrap(), expected);
    }

    #[test]
    fn what_has_no_text_is_told_where() {
        let dir = tempfile::tempdir().unwrap();
        let error = |name: &str, field: &str| {
            let texts = Texts { field: field.to_owned(), ..Texts::of(vec![dir.path().join(name)]) };
            let Err(Error::File { path, source }) = all(&texts) else { panic!("{name} was read") };
            assert!(path.ends_with(name));
            source.to_string()
        };
        std::fs::write(dir.path().join("lines.jsonl"), "{\"text\": \"a\"}\n{\"text\": 3}\n").unwrap();
        assert_eq!(error("lines.jsonl", "text"), "line 2: there is no text in the field text");
        std::fs::write(dir.path().join("broken.jsonl"), "{\"text\": \n").unwrap();
        assert!(error("broken.jsonl", "text").starts_with("line 1: EOF"));
        write(&dir.path().join("rows.parquet"), &[Some("a")], Compression::SNAPPY);
        assert!(error("rows.parquet", "text").contains("no column text among id, body"));
        assert!(error("rows.parquet", "id").contains("column id does not hold a text a row"));
        std::fs::write(dir.path().join("not.parquet"), "not Parquet at all").unwrap();
        assert!(!error("not.parquet", "text").is_empty());
        assert!(!error("absent.txt", "text").is_empty());
    }

    #[test]
    fn pieces_are_whole_sentences() {
        let mut found = Vec::new();
        pieces("It was dark. Was it? Yes, it was! And cold. Very.", 4, &mut |piece: &str| found.push(piece.to_owned()));
        assert_eq!(found, ["It was dark. Was it?", "Yes, it was! And cold."]);
    }

    #[test]
    fn short_texts_are_left_out_before_they_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("texts.jsonl");
        std::fs::write(&path, "{\"text\": \"One two.\"}\n{\"text\": \"One. Two, three. Four.\"}\n").unwrap();
        let texts = Texts { min_words: Some(4), words: Some(1), ..Texts::of(vec![path]) };
        assert_eq!(all(&texts).unwrap(), ["One.", "Two, three.", "Four."]);
    }

    #[test]
    fn a_sample_is_seeded_and_fair() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers.jsonl");
        std::fs::write(&path, (0..20).map(|i| format!("{{\"text\": \"{i}\"}}\n")).collect::<String>()).unwrap();
        let texts = Texts { sample: Some(5), ..Texts::of(vec![path]) };
        let sample = |seed| {
            let found: Vec<usize> =
                texts.batches(seed).unwrap().flat_map(Result::unwrap).map(|text| text.parse().unwrap()).collect();
            assert!(found.len() == 5 && found.is_sorted());
            found
        };
        assert_eq!(sample(3), sample(3));
        let mut times = [0; 20];
        (0..2000).flat_map(sample).for_each(|text| times[text] += 1);
        // 500 expected, standard deviation 19.4.
        assert!(times.iter().all(|time| (420..580).contains(time)), "{times:?}");
    }

    proptest! {
        #[test]
        fn pieces_lose_nothing_but_the_end(text in "[a-c .!?\\n]{0,200}", words in 1_usize..9) {
            let mut found = Vec::new();
            pieces(&text, words, &mut |piece: &str| found.push(piece.to_owned()));
            let mut rest = text.as_str();
            for piece in &found {
                prop_assert!(piece.unicode_words().count() >= words);
                let at = rest.find(piece.as_str()).unwrap();
                prop_assert!(rest[..at].trim().is_empty());
                rest = &rest[at + piece.len()..];
            }
            prop_assert!(rest.unicode_words().count() < words);
        }
    }
}
