//! A report as text: the cells of its table, the aligned table for a terminal, and sentences that the HTML page shares.

use std::fmt::Write as _;

use crate::corpus::Omission;
use crate::estimate::{PairingErrors, PointEstimate, Series};
use crate::fit::Fit;
use crate::report::{Report, Row, SeriesFit};

impl Report {
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

    /// Returns the report as text for a terminal: aligned rows, fits and conclusions.
    pub fn table(&self) -> String {
        let mut text = self.aligned_cells();
        let unit = self.unit.name();
        text += &format!("\nmutual information in {unit}, mean ± standard error");
        if let Some(Row { estimates: PointEstimate { length, pairing_errors, .. }, .. }) = self.rows.last() {
            let PairingErrors { same, crossed } = pairing_errors;
            let _ = write!(
                text,
                "; direct at L = {length}: ± {same:.2} with the same y in both terms, \
                 ± {crossed:.2} with the partner's y in the marginal term"
            );
        }
        text += "\npower laws in L, ± standard error, the exponent's 95 % interval in brackets:\n";
        for SeriesFit { ratio, series, fit } in &self.fits {
            let (series, method, rest) = (series.name(), fit.method.name(), left_out(fit));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{series:>12}   L/ℓ = {ratio}, {method:<13}   {fit}{rest}");
        }
        text += &self.laws_text();
        if let Some(divergence) = self.divergence_text() {
            let _ = writeln!(text, "KL divergence of the model from the process: {divergence}");
        }
        text += &self.two_point_text();
        text += &self.entropies_text();
        for summary in Omission::summaries(&self.left_out) {
            let _ = writeln!(text, "left out of the corpus: {summary}");
        }
        text + &self.reading().map_or_else(String::new, |reading| format!("\n{reading}\n"))
    }

    /// Returns the headings and cells in right-aligned columns.
    fn aligned_cells(&self) -> String {
        let (heads, rows) = self.cells();
        let heads: Vec<String> = heads.into_iter().map(str::to_owned).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&heads).chain(&rows).collect();
        let mut widths = vec![0; heads.len()];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(*line) {
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

    /// Returns the model's divergence from the process, with its unit; `None` if it is unknown.
    pub(crate) fn divergence_text(&self) -> Option<String> {
        let (estimate, unit) = (self.divergence?, self.unit.name());
        Some(format!("{estimate} {unit} over {} tokens", self.nll.len()))
    }
}

/// Returns a cell: an exact value, an estimate with its error, or a dash.
fn cell(row: &Row, series: Series) -> String {
    match (row.get(series), series) {
        (None, _) => "–".to_owned(),
        (Some(exact), Series::Truth | Series::VclubLimit) => format!("{:.3}", exact.value),
        (Some(estimate), _) => estimate.to_string(),
    }
}

/// Returns `  (without L = 4, 8: not positive)`, or an empty string if no point was omitted.
pub(crate) fn left_out(fit: &Fit) -> String {
    if fit.left_out.is_empty() {
        return String::new();
    }
    let lengths: Vec<String> = fit.left_out.iter().map(ToString::to_string).collect();
    format!("  (without L = {}: not positive)", lengths.join(", "))
}
