//! Texts in JSON Lines and JSON files.

use std::io::{BufRead, Read, Result};

use serde::Deserialize;
use serde_json::Value;

use crate::corpus::rows::{malformed, no_field};

/// The rows of a JSON Lines file: an object with a text in `field`, or a string, on each line. Empty lines are skipped.
pub(crate) struct JsonLines<R> {
    reader: R,
    field: String,
    line: String,
    number: usize,
}

impl<R: BufRead> JsonLines<R> {
    pub(crate) fn new(reader: R, field: &str) -> Self {
        Self { reader, field: field.to_owned(), line: String::new(), number: 0 }
    }

    /// Reads the next line that is not empty. Returns `false` at the end of the file.
    fn advance(&mut self) -> Result<bool> {
        loop {
            self.line.clear();
            if self.reader.read_line(&mut self.line)? == 0 {
                return Ok(false);
            }
            self.number += 1;
            if !self.line.trim().is_empty() {
                return Ok(true);
            }
        }
    }

    fn text(&self) -> Result<Option<String>> {
        let wrong = |reason: String| malformed("line", self.number, reason);
        let value = serde_json::from_str(&self.line).map_err(|error| wrong(reason_and_column(&error)))?;
        if let Value::Array(_) = value {
            let reason = "expected an object or a string, got an array; if the file is one JSON array, name it .json or \
                          set `format` to json";
            return Err(wrong(reason.to_owned()));
        }
        text_of(value, &self.field).map_err(wrong)
    }
}

impl<R: BufRead> Iterator for JsonLines<R> {
    type Item = Result<Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(self.text()),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// The items of a JSON file: of one array, or of a sequence of values that white space separates.
pub(crate) struct JsonItems<R> {
    reader: LineCounter<R>,
    field: String,
    position: Position,
}

/// The position between two items.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Start,
    /// In a sequence of values.
    Sequence,
    /// Directly after the bracket that opens the array.
    ArrayStart,
    /// After an item of the array.
    Array,
    /// After the bracket that closes the array.
    ArrayEnd,
}

impl<R: BufRead> JsonItems<R> {
    pub(crate) fn new(reader: R, field: &str) -> Self {
        let reader = LineCounter { reader, line: 1 };
        Self { reader, field: field.to_owned(), position: Position::Start }
    }

    /// Moves to the start of the next item. Returns `false` at the end of the file.
    fn advance(&mut self) -> Result<bool> {
        let next = self.reader.skip_space()?;
        match (self.position, next) {
            (Position::Start, Some(b'[')) => {
                self.reader.consume(1);
                self.position = Position::ArrayStart;
                self.advance()
            }
            (Position::ArrayStart | Position::Array, Some(b']')) => {
                self.reader.consume(1);
                self.position = Position::ArrayEnd;
                self.advance()
            }
            (Position::Array, Some(b',')) => {
                self.reader.consume(1);
                self.reader.skip_space()?;
                Ok(true)
            }
            (Position::ArrayStart | Position::Array, None) => Err(self.wrong("the file ends within the array")),
            (Position::Array, Some(_)) => Err(self.wrong("expected `,` or `]` after an item of the array")),
            (Position::ArrayEnd, Some(_)) => Err(self.wrong("expected the end of the file after the array")),
            (Position::ArrayStart, Some(_)) => {
                self.position = Position::Array;
                Ok(true)
            }
            (Position::Start | Position::Sequence, Some(_)) => {
                self.position = Position::Sequence;
                Ok(true)
            }
            (Position::Start | Position::Sequence | Position::ArrayEnd, None) => Ok(false),
        }
    }

    fn wrong(&self, reason: &str) -> std::io::Error {
        malformed("line", self.reader.line, reason)
    }

    fn text(&mut self) -> Result<Option<String>> {
        let line = self.reader.line;
        let mut deserializer = serde_json::Deserializer::from_reader(&mut self.reader);
        let value = Value::deserialize(&mut deserializer).map_err(|error| {
            if error.is_io() {
                return error.into();
            }
            malformed("line", line + error.line().saturating_sub(1), reason_and_column(&error))
        })?;
        text_of(value, &self.field).map_err(|reason| malformed("line", line, reason))
    }
}

impl<R: BufRead> Iterator for JsonItems<R> {
    type Item = Result<Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(self.text()),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// A reader that counts lines.
struct LineCounter<R> {
    reader: R,
    /// The number of the current line, from 1.
    line: usize,
}

impl<R: BufRead> LineCounter<R> {
    /// Returns the next byte that is not white space, without consuming it; `None` at the end.
    fn skip_space(&mut self) -> Result<Option<u8>> {
        loop {
            match self.reader.fill_buf()?.first() {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.consume(1),
                next => return Ok(next.copied()),
            }
        }
    }

    fn consume(&mut self, count: usize) {
        if let Ok(bytes) = self.reader.fill_buf() {
            self.line += bytes[..count].iter().filter(|byte| **byte == b'\n').count();
        }
        self.reader.consume(count);
    }
}

impl<R: BufRead> Read for LineCounter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.reader.read(buffer)?;
        self.line += buffer[..count].iter().filter(|byte| **byte == b'\n').count();
        Ok(count)
    }
}

/// Returns the text of a row: a string, or an object's field; `None` for a null.
fn text_of(row: Value, field: &str) -> std::result::Result<Option<String>, String> {
    let value = match row {
        Value::Object(mut object) => match object.remove(field) {
            Some(value) => value,
            None => return Err(no_field("field", field, &object.keys().map(String::as_str).collect::<Vec<_>>())),
        },
        Value::String(_) | Value::Null => row,
        row => return Err(format!("expected an object or a string, got {}", kind(&row))),
    };
    match value {
        Value::String(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        value => Err(format!("field `{field}` is {}; it must be a string", kind(&value))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Returns the message of a syntax error, with the column but without the line.
fn reason_and_column(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => format!("{reason} at column {}", error.column()),
        None => text,
    }
}
