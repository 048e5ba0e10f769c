//! A slice of a tensor: a range of its rows and a range of its columns.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

/// A range of rows and a range of columns of a tensor. A column is an index of the last dimension; a row is an index of
/// all other dimensions together.
#[derive(Clone, Debug)]
pub(super) struct TensorSlice {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Number of columns of the whole tensor.
    pub(super) width: usize,
}

impl TensorSlice {
    /// Creates the slice that contains all rows and columns.
    pub(super) fn whole(shape: &[usize]) -> Self {
        let width = shape.last().copied().unwrap_or(1);
        Self { rows: 0..shape.iter().rev().skip(1).product(), columns: 0..width, width }
    }

    /// Creates the slice that contains the given rows and columns.
    ///
    /// # Panics
    ///
    /// Panics if a row or column is outside the tensor.
    pub(super) fn new(shape: &[usize], ranges: [Range<usize>; 2]) -> Self {
        let whole = Self::whole(shape);
        let is_within = ranges[0].end <= whole.rows.end && ranges[1].end <= whole.columns.end;
        assert!(is_within, "slice {ranges:?} is outside a tensor of shape {shape:?}");
        let [rows, columns] = ranges;
        Self { rows, columns, width: whole.width }
    }

    /// Returns the slice of the given rows and the same columns.
    pub(super) fn with_rows(&self, rows: Range<usize>) -> Self {
        Self { rows, columns: self.columns.clone(), width: self.width }
    }

    /// Converts a position in this slice to an index in the whole tensor, both in row-major order.
    pub(super) fn index_of(&self, position: usize) -> usize {
        let (row, column) = (position / self.columns.len(), position % self.columns.len());
        (self.rows.start + row) * self.width + self.columns.start + column
    }

    /// Returns the range of the tensor's bytes that holds the slice's rows, with all their columns.
    pub(super) fn row_bytes(&self, value_bytes: usize) -> Range<usize> {
        let row = self.width * value_bytes;
        self.rows.start * row..self.rows.end * row
    }

    /// Selects the slice's columns from the bytes of its rows. Copies nothing if the slice has all columns.
    pub(super) fn select_columns<'a>(&self, rows: &'a [u8], value_bytes: usize) -> Cow<'a, [u8]> {
        if self.columns.len() == self.width {
            return Cow::Borrowed(rows);
        }
        let columns = self.columns.start * value_bytes..self.columns.end * value_bytes;
        let row = (self.width * value_bytes).max(1);
        Cow::Owned(rows.par_chunks_exact(row).flat_map_iter(|row| row[columns.clone()].to_vec()).collect())
    }

    /// Selects the slice's columns like [`select_columns`](Self::select_columns), from bytes that it takes.
    pub(super) fn take_columns(&self, rows: Vec<u8>, value_bytes: usize) -> Vec<u8> {
        if self.columns.len() == self.width {
            return rows;
        }
        self.select_columns(&rows, value_bytes).into_owned()
    }
}
