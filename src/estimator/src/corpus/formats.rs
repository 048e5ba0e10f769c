//! Readers of texts in JSON Lines and Parquet files.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// The number of rows of a Parquet file that are read at once.
const ROWS_AT_ONCE: usize = 256;

/// Reads a `.jsonl` file: one object per line, with a text in `field`. Skips empty lines.
pub(crate) fn read_jsonl(path: &Path, field: &str, visit: &mut impl FnMut(&str)) -> std::io::Result<()> {
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
        visit(text.ok_or_else(|| wrong(format!("field `{field}` is missing or not a string")))?);
    }
    Ok(())
}

/// Reads a `.parquet` file: one text per row, in `column`. Skips rows whose text is null.
pub(crate) fn read_parquet(path: &Path, column: &str, visit: &mut impl FnMut(&str)) -> Result<(), ParquetError> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let names: Vec<String> = schema.columns().iter().map(|found| found.path().string()).collect();
    let Some(index) = names.iter().position(|name| name == column) else {
        return Err(ParquetError::General(format!("no column `{column}`; the columns are {}", names.join(", "))));
    };
    let found = schema.column(index);
    if found.physical_type() != parquet::basic::Type::BYTE_ARRAY || found.max_rep_level() > 0 {
        return Err(ParquetError::General(format!("column `{column}` does not have one text per row")));
    }
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        let mut column = get_typed_column_reader::<ByteArrayType>(group.get_column_reader(index)?);
        let (mut texts, mut levels): (Vec<ByteArray>, Vec<i16>) = (Vec::new(), Vec::new());
        while column.read_records(ROWS_AT_ONCE, Some(&mut levels), None, &mut texts)?.0 > 0 {
            levels.clear();
            for text in texts.drain(..) {
                visit(text.as_utf8()?);
            }
        }
    }
    Ok(())
}
