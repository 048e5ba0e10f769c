//! Writing Parquet files column by column.

use std::io::Write;

use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::writer::SerializedRowGroupWriter;

/// A column with nulls: the values that are present, and for each entry a definition level, 1 if its value is present
/// and 0 otherwise.
pub(crate) struct OptionalColumn<T> {
    pub(crate) values: Vec<T>,
    pub(crate) levels: Vec<i16>,
}

impl<T> Default for OptionalColumn<T> {
    fn default() -> Self {
        Self { values: Vec::new(), levels: Vec::new() }
    }
}

impl<T> OptionalColumn<T> {
    pub(crate) fn push(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    /// Writes this column as the next one of the group.
    pub(crate) fn write<D: DataType<T = T>>(
        &self,
        group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    ) -> Result<(), ParquetError> {
        write::<D>(group, &self.values, Some(&self.levels))
    }
}

/// Writes the next column.
pub(crate) fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("the schema has no more columns to write".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// Returns the metadata entries of a file.
pub(crate) fn key_values(entries: &[(&str, &str)]) -> Vec<KeyValue> {
    entries.iter().map(|(name, value)| KeyValue::new((*name).to_owned(), (*value).to_owned())).collect()
}
