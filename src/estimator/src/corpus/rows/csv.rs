//! Texts in files of comma- or tab-separated values (RFC 4180).
//!
//! The reader is strict: a stray quote, which makes lenient readers join rows, is an error.

use std::io::{BufRead, Result};

use crate::corpus::rows::{malformed, no_field};

/// The rows of a file of separated values, without its header.
pub(crate) struct CsvRows<R> {
    records: Records<R>,
    /// The index of the column with the texts.
    column: usize,
    /// The number of columns.
    width: usize,
}

impl<R: BufRead> CsvRows<R> {
    /// Reads the header. An empty file has no rows.
    pub(crate) fn new(reader: R, delimiter: u8, field: &str) -> Result<Self> {
        let mut records = Records { reader, delimiter, line: 1, first_line: 1 };
        let Some(header) = records.next_record(0)? else { return Ok(Self { records, column: 0, width: 0 }) };
        let mut columns = header.iter().enumerate().filter(|(_, name)| *name == field).map(|(column, _)| column);
        let Some(column) = columns.next() else {
            let names: Vec<&str> = header.iter().map(String::as_str).collect();
            return Err(malformed("line", records.first_line, no_field("column", field, &names)));
        };
        if columns.next().is_some() {
            return Err(malformed("line", records.first_line, format!("there are several columns `{field}`")));
        }
        Ok(Self { records, column, width: header.len() })
    }

    fn text(&self, mut record: Vec<String>) -> Result<Option<String>> {
        if record.len() != self.width {
            let (found, expected) = (record.len(), self.width);
            let reason = format!(
                "expected {expected} fields, as in the header, got {found}; a field that contains a delimiter or a \
                 line break must be in quotes"
            );
            return Err(malformed("line", self.records.first_line, reason));
        }
        Ok(Some(record.swap_remove(self.column)))
    }
}

impl<R: BufRead> Iterator for CsvRows<R> {
    type Item = Result<Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.records.next_record(self.width) {
            Ok(record) => record.map(|record| self.text(record)),
            Err(error) => Some(Err(error)),
        }
    }
}

/// The records of a file.
struct Records<R> {
    reader: R,
    delimiter: u8,
    /// The number of the current line, from 1.
    line: usize,
    /// The line on which the last record begins.
    first_line: usize,
}

/// The state of the parser after a byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field, which ends the field unless a second quote follows.
    Quote,
    /// After the quote that ends a field, and a carriage return.
    QuoteReturn,
}

impl<R: BufRead> Records<R> {
    /// Reads the next record; `None` at the end of the file. Skips blank lines, unless the records have `width` 1: then
    /// a blank line is a record with an empty field.
    fn next_record(&mut self, width: usize) -> Result<Option<Vec<String>>> {
        loop {
            self.first_line = self.line;
            let Some(record) = self.read_record()? else { return Ok(None) };
            let blank = record.len() == 1 && record[0].is_empty();
            if !blank || width == 1 {
                return Ok(Some(record));
            }
        }
    }

    fn read_record(&mut self) -> Result<Option<Vec<String>>> {
        let (mut fields, mut field) = (Vec::new(), Vec::new());
        let mut state = State::FieldStart;
        loop {
            let Some(&byte) = self.reader.fill_buf()?.first() else {
                return self.finish(fields, field, state);
            };
            self.reader.consume(1);
            self.line += usize::from(byte == b'\n');
            state = match (state, byte) {
                (State::FieldStart, b'"') => State::Quoted,
                (State::Quoted, b'"') => State::Quote,
                (State::Quote, b'"') => {
                    field.push(b'"');
                    State::Quoted
                }
                (State::Quoted, _) => {
                    field.push(byte);
                    State::Quoted
                }
                (State::Quote, b'\r') => State::QuoteReturn,
                (_, b'\n') => {
                    // An unquoted field has kept the carriage return of its line break.
                    if state == State::Unquoted && field.last() == Some(&b'\r') {
                        field.pop();
                    }
                    fields.push(self.decode(field)?);
                    return Ok(Some(fields));
                }
                (State::Quote | State::FieldStart | State::Unquoted, byte) if byte == self.delimiter => {
                    fields.push(self.decode(std::mem::take(&mut field))?);
                    State::FieldStart
                }
                (State::Quote | State::QuoteReturn, _) => return Err(self.stray_quote()),
                (State::FieldStart | State::Unquoted, _) => {
                    field.push(byte);
                    State::Unquoted
                }
            };
        }
    }

    /// Returns the last record, which no line break ends; `None` if the file ends before a record.
    fn finish(&self, mut fields: Vec<String>, mut field: Vec<u8>, state: State) -> Result<Option<Vec<String>>> {
        match state {
            State::FieldStart if fields.is_empty() => return Ok(None),
            State::Quoted => {
                let reason = "the file ends within a quoted field of the row that begins here; close the quote, or \
                              double each quote within a field";
                return Err(malformed("line", self.first_line, reason));
            }
            State::Unquoted if field.last() == Some(&b'\r') => drop(field.pop()),
            _ => {}
        }
        fields.push(self.decode(field)?);
        Ok(Some(fields))
    }

    fn decode(&self, field: Vec<u8>) -> Result<String> {
        String::from_utf8(field).map_err(|error| malformed("line", self.line, error))
    }

    fn stray_quote(&self) -> std::io::Error {
        let reason = "text follows the quote that ends a field; double each quote within a field that begins with one";
        malformed("line", self.line, reason)
    }
}
