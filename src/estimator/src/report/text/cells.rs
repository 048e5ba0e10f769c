//! The cells of a report's table, and the aligned table for a terminal.

use crate::estimate::{PointEstimate, Series};
use crate::number::exact;
use crate::report::{Report, Row};

/// The minimum width of a column with the names of series, so that all parts of the text are aligned.
const MIN_NAME_WIDTH: usize = 12;

impl Report {
    /// Returns the width of a column with the names of this report's series.
    pub(crate) fn series_width(&self) -> usize {
        self.series().iter().map(|series| series.name().chars().count()).max().unwrap_or_default().max(MIN_NAME_WIDTH)
    }

    /// Returns the column headings and the cells of each row, for text and HTML.
    pub(crate) fn cells(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let series = self.series();
        let heads = ["L/ℓ", "L", "ℓ"].into_iter().chain(series.iter().map(|series| series.name())).collect();
        let mut rows = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let PointEstimate { ratio, length, split, .. } = row.estimates;
            let mut cells = [ratio, length, split].map(|number| number.to_string()).to_vec();
            cells.extend(series.iter().map(|&series| cell(row, series)));
            rows.push(cells);
        }
        (heads, rows)
    }
}

/// Returns the headings and cells in right-aligned columns.
pub(crate) fn aligned(heads: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut widths = vec![0; heads.len()];
    let lines = [vec![heads], rows].concat();
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        text += &padded.join("   ");
        text.push('\n');
    }
    text
}

/// Returns a cell: an exact value, an estimate with its error, or a dash.
fn cell(row: &Row, series: Series) -> String {
    match (row.get(series), series) {
        (None, _) => "–".to_owned(),
        (Some(estimate), Series::Truth | Series::VclubLimit) => exact(estimate.value),
        (Some(estimate), _) => estimate.to_string(),
    }
}
