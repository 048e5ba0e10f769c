//! Texts in a column of a Parquet file.

use std::fs::File;
use std::io::{Error, Result};
use std::path::Path;

use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::corpus::decode::open_seekable;
use crate::corpus::rows::{malformed, no_field};

/// The number of rows that are read at once.
const ROWS_AT_ONCE: usize = 256;

/// The rows of a Parquet file.
pub(crate) struct ParquetRows {
    reader: SerializedFileReader<File>,
    /// The index of the column with the texts.
    column: usize,
    /// The definition level of a value that is not null.
    defined: i16,
    /// The column in the current row group; `None` before the first group and after each group.
    chunk: Option<ColumnReaderImpl<ByteArrayType>>,
    next_group: usize,
    /// Rows that have been read and not yet returned.
    pending: std::vec::IntoIter<Option<ByteArray>>,
    /// The number of rows that have been returned.
    row: usize,
}

impl ParquetRows {
    pub(crate) fn open(path: &Path, field: &str) -> Result<Self> {
        let reader = SerializedFileReader::new(open_seekable(path)?).map_err(Error::other)?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let names: Vec<String> = schema.columns().iter().map(|found| found.path().string()).collect();
        let Some(column) = names.iter().position(|name| name == field) else {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            return Err(Error::other(no_field("column", field, &names)));
        };
        let found = schema.column(column);
        if found.physical_type() != parquet::basic::Type::BYTE_ARRAY || found.max_rep_level() > 0 {
            return Err(Error::other(format!("column `{field}` does not have one text per row")));
        }
        let (defined, pending) = (found.max_def_level(), Vec::new().into_iter());
        Ok(Self { reader, column, defined, chunk: None, next_group: 0, pending, row: 0 })
    }

    /// Reads more rows. Returns `false` at the end of the file.
    fn advance(&mut self) -> std::result::Result<bool, ParquetError> {
        loop {
            if self.chunk.is_none() {
                if self.next_group == self.reader.num_row_groups() {
                    return Ok(false);
                }
                let group = self.reader.get_row_group(self.next_group)?;
                self.chunk = Some(get_typed_column_reader(group.get_column_reader(self.column)?));
                self.next_group += 1;
            }
            if let Some(chunk) = &mut self.chunk {
                let (mut texts, mut levels) = (Vec::new(), Vec::new());
                let (rows, ..) = chunk.read_records(ROWS_AT_ONCE, Some(&mut levels), None, &mut texts)?;
                if rows > 0 {
                    // A column without nulls has no levels.
                    levels.resize(rows, self.defined);
                    let mut texts = texts.into_iter();
                    let row = |level: i16| if level == self.defined { texts.next() } else { None };
                    self.pending = levels.into_iter().map(row).collect::<Vec<_>>().into_iter();
                    return Ok(true);
                }
                self.chunk = None;
            }
        }
    }
}

impl Iterator for ParquetRows {
    type Item = Result<Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pending.len() == 0 {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(malformed("after row", self.row, error))),
            }
        }
        let text = self.pending.next()?;
        self.row += 1;
        let decode = |text: ByteArray| match text.as_utf8() {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(malformed("row", self.row, "the text is not valid UTF-8")),
        };
        Some(text.map(decode).transpose())
    }
}
