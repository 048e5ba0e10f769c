//! The documents beside their answers, in Parquet: the tokens with their ranges in the texts, and the texts' origins.
//!
//! The bytes of both files depend only on the plan: they contain no times, folders or program versions. So a run can
//! compare them with the files that exist, and a merge those of several shards.

use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::corpus::{Documents, TextOrigin, TokenRange, TokenRanges, WindowPlace};
use crate::store::answer_file::KEY;
use crate::store::columns::{OptionalColumn, key_values, write};

/// The folder of these files in a folder of answers. Files in a folder of their own do not match `*.parquet`, which
/// stands for the answer files.
pub(crate) const FOLDER: &str = "documents";

/// The files, in the order of [`encode`].
pub(crate) const NAMES: [&str; 2] = ["tokens.parquet", "texts.parquet"];

/// The version of both schemas, in the metadata. It changes if a column changes its name, type or meaning.
const SCHEMA_VERSION: &str = "1";

/// The schema of the tokens: one row per document and position. `document` is `x` or `y` of the answers; `text` is the
/// row of `texts.parquet`. The offsets are relative to the text; they are null if the tokenizer does not state them.
const TOKENS: &str = "message tokens {
    required int32 document;
    required int32 text;
    required int32 position;
    required int32 token;
    optional int64 byte_start;
    optional int64 byte_end;
    optional int64 char_start;
    optional int64 char_end;
}";

/// The schema of the texts. `file` is null for sampled documents, and `row` for files that are one text. `byte_start`
/// and `char_start` are the offset of the text in the row or file; they are not 0 if the corpus cuts texts into pieces.
const TEXTS: &str = "message texts {
    required int32 text;
    optional binary file (UTF8);
    optional int64 row;
    optional int64 byte_start;
    optional int64 char_start;
}";

/// The columns of offsets, which increase slowly.
const OFFSETS: [&str; 4] = ["byte_start", "byte_end", "char_start", "char_end"];

/// The number of tokens in a row group, unless one document has more.
const GROUP_TOKENS: usize = 1 << 20;

/// Encodes the documents as the files [`NAMES`]. `key` is that of the answers.
pub(crate) fn encode(documents: &Documents, key: &str) -> Result<[Vec<u8>; 2], ParquetError> {
    let mut tokens = Vec::new();
    let mut writer = writer(&mut tokens, TOKENS, "tokens", key)?;
    let per_group = (GROUP_TOKENS / documents.windows.first().map_or(1, Vec::len).max(1)).max(1);
    let all: Vec<(&Vec<u32>, &WindowPlace)> = documents.windows.iter().zip(&documents.places).collect();
    for (index, group) in all.chunks(per_group).enumerate() {
        let mut columns = TokenColumns::default();
        for (offset, (window, place)) in group.iter().enumerate() {
            columns.add(index * per_group + offset, window, place);
        }
        columns.write(&mut writer)?;
    }
    writer.close()?;
    Ok([tokens, encode_texts(documents, key)?])
}

fn encode_texts(documents: &Documents, key: &str) -> Result<Vec<u8>, ParquetError> {
    let mut bytes = Vec::new();
    let mut writer = writer(&mut bytes, TEXTS, "texts", key)?;
    let count = documents.places.last().map_or(0, |place| place.text + 1);
    let (mut file, mut row) = (OptionalColumn::default(), OptionalColumn::default());
    let (mut byte_start, mut char_start) = (OptionalColumn::default(), OptionalColumn::default());
    for text in 0..count {
        let origin = documents.origins.get(text);
        file.push(origin.map(|origin| ByteArray::from(&*origin.file)));
        row.push(origin.and_then(|origin| origin.row).map(|row| row as i64));
        byte_start.push(origin.map(|&TextOrigin { byte, .. }| byte as i64));
        char_start.push(origin.map(|&TextOrigin { character, .. }| character as i64));
    }
    let mut group = writer.next_row_group()?;
    write::<Int32Type>(&mut group, &(0..count as i32).collect::<Vec<_>>(), None)?;
    file.write::<ByteArrayType>(&mut group)?;
    for column in [row, byte_start, char_start] {
        column.write::<Int64Type>(&mut group)?;
    }
    group.close()?;
    writer.close()?;
    Ok(bytes)
}

/// Creates a writer of a file with this schema.
fn writer<'a>(
    bytes: &'a mut Vec<u8>,
    schema: &str,
    name: &str,
    key: &str,
) -> Result<SerializedFileWriter<&'a mut Vec<u8>>, ParquetError> {
    let metadata = key_values(&[("schema", name), ("schema_version", SCHEMA_VERSION), (KEY, key)]);
    let mut properties = WriterProperties::builder()
        .set_key_value_metadata(Some(metadata))
        .set_created_by("surprisal".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()));
    for column in OFFSETS {
        properties = properties
            .set_column_dictionary_enabled(column.into(), false)
            .set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED);
    }
    SerializedFileWriter::new(bytes, Arc::new(parse_message_type(schema)?), Arc::new(properties.build()))
}

/// The columns of the tokens of some documents.
#[derive(Default)]
struct TokenColumns {
    document: Vec<i32>,
    text: Vec<i32>,
    position: Vec<i32>,
    token: Vec<i32>,
    /// In the order of [`OFFSETS`].
    offsets: [OptionalColumn<i64>; 4],
}

impl TokenColumns {
    fn add(&mut self, document: usize, window: &[u32], place: &WindowPlace) {
        let mut ranges = place.ranges.as_ref().map(TokenRanges::iter);
        for (position, &token) in window.iter().enumerate() {
            self.document.push(document as i32);
            self.text.push(place.text as i32);
            self.position.push(position as i32);
            self.token.push(token as i32);
            let range = ranges.as_mut().and_then(Iterator::next);
            let ends = range.map(|TokenRange { bytes, characters }| {
                [bytes.start, bytes.end, characters.start, characters.end].map(|end| end as i64)
            });
            for (index, column) in self.offsets.iter_mut().enumerate() {
                column.push(ends.map(|ends| ends[index]));
            }
        }
    }

    /// Writes the columns as a row group, in the schema's order.
    fn write(&self, writer: &mut SerializedFileWriter<&mut Vec<u8>>) -> Result<(), ParquetError> {
        let mut group = writer.next_row_group()?;
        for column in [&self.document, &self.text, &self.position, &self.token] {
            write::<Int32Type>(&mut group, column, None)?;
        }
        for column in &self.offsets {
            column.write::<Int64Type>(&mut group)?;
        }
        group.close()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::corpus::IdentityHasher;
    use crate::statistics::TokenStore;

    /// Two documents of one text, which is a piece of a row, and one of a file that is one text. The tokenizer states no
    /// ranges for the latter.
    fn documents() -> Documents {
        let range = |bytes: Range<usize>, characters: Range<usize>| TokenRange { bytes, characters };
        let mut ranges = TokenRanges::default();
        ranges.push(range(7..9, 5..6)).unwrap();
        ranges.push(range(7..9, 5..6)).unwrap();
        let places = [(0, Some(ranges.clone())), (0, Some(ranges)), (1, None)];
        let origin = |file: &str, row, byte, character| TextOrigin { file: file.into(), row, byte, character };
        Documents {
            windows: vec![vec![8, 9], vec![1, 2], vec![3, 4]],
            texts: TokenStore::default(),
            places: places.map(|(text, ranges)| WindowPlace { text, ranges }).to_vec(),
            origins: vec![origin("a/b.jsonl", Some(3), 20, 19), origin("c.txt", None, 0, 0)],
            identity: IdentityHasher::default().finish(String::new()),
            note: String::new(),
            statistics: None,
            omissions: Vec::new(),
            ln_p: None,
        }
    }

    fn rows(bytes: &[u8]) -> Vec<String> {
        let reader = SerializedFileReader::new(bytes::Bytes::copy_from_slice(bytes)).unwrap();
        let values = |row: parquet::record::Row| {
            let cells: Vec<String> = row.get_column_iter().map(|(_, field)| field.to_string()).collect();
            cells.join(" ")
        };
        reader.get_row_iter(None).unwrap().map(|row| values(row.unwrap())).collect()
    }

    #[test]
    fn documents_are_read_back_with_their_ranges() {
        let [tokens, texts] = encode(&documents(), "key").unwrap();
        let expected = [
            "0 0 0 8 7 9 5 6",
            "0 0 1 9 7 9 5 6",
            "1 0 0 1 7 9 5 6",
            "1 0 1 2 7 9 5 6",
            "2 1 0 3 null null null null",
            "2 1 1 4 null null null null",
        ];
        assert_eq!(rows(&tokens), expected);
        assert_eq!(rows(&texts), ["0 \"a/b.jsonl\" 3 20 19", "1 \"c.txt\" null 0 0"]);
        assert_eq!(encode(&documents(), "key").unwrap(), [tokens, texts], "the same bytes every time");
        let sampled = Documents { origins: Vec::new(), ..documents() };
        assert_eq!(rows(&encode(&sampled, "key").unwrap()[1]), ["0 null null null null", "1 null null null null"]);
    }
}
