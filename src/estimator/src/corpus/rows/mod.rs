//! The rows of a file as an iterator over texts, for each format. Errors state the line or row.

mod csv;
mod json;
mod parquet;

use std::io::{Error, ErrorKind, Result};

use encoding_rs::Encoding;

use crate::corpus::decode::{open_text, read_text};
use crate::corpus::files::CorpusFile;
use crate::corpus::format::Format;
use crate::corpus::rows::csv::CsvRows;
use crate::corpus::rows::json::{JsonItems, JsonLines};
use crate::corpus::rows::parquet::ParquetRows;

/// The texts of a file, in order; `None` for a null. After an error, the iterator must not be used again.
pub(crate) type Rows = Box<dyn Iterator<Item = Result<Option<String>>> + Send>;

/// The number of fields that an error lists.
const LISTED_FIELDS: usize = 20;

/// Opens a file. `field` is the field or column of the texts, and `encoding` the encoding of files that are not Parquet
/// and have no byte-order mark; `None` for UTF-8.
///
/// # Errors
/// A failure to read the file, without its name.
pub(crate) fn open_rows(file: &CorpusFile, field: &str, encoding: Option<&'static Encoding>) -> Result<Rows> {
    let reader = || open_text(&file.path, encoding);
    Ok(match file.format {
        Format::Text => Box::new(std::iter::once(Ok(Some(read_text(&file.path, encoding)?)))),
        Format::Jsonl => Box::new(JsonLines::new(reader()?, field)),
        Format::Json => Box::new(JsonItems::new(reader()?, field)),
        Format::Csv => Box::new(CsvRows::new(reader()?, b',', field)?),
        Format::Tsv => Box::new(CsvRows::new(reader()?, b'\t', field)?),
        Format::Parquet => Box::new(ParquetRows::open(&file.path, field)?),
    })
}

/// Returns the error for a malformed line, row or item.
fn malformed(place: &str, number: usize, reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{place} {number}: {reason}"))
}

/// Returns the reason for a missing field or column, with the first names of those that exist.
fn no_field(kind: &str, field: &str, names: &[&str]) -> String {
    let shorten = |name: &&str| match name.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => (*name).to_owned(),
    };
    let listed: Vec<String> = names.iter().take(LISTED_FIELDS).map(shorten).collect();
    let more = if names.len() > listed.len() { ", ..." } else { "" };
    let names = if names.is_empty() { "none".to_owned() } else { listed.join(", ") };
    format!("no {kind} `{field}`; the {kind}s are {names}{more}")
}

#[cfg(test)]
pub(crate) mod tests;
