//! A report as text for a terminal. `cells` has the table of estimates, `fits` the power-law fits.

mod cells;
mod fits;

pub(crate) use cells::aligned;
pub(crate) use fits::left_out;

use std::fmt::Write as _;

use crate::corpus::Omission;
use crate::estimate::{PairingErrors, PointEstimate};
use crate::number::significant;
use crate::report::{Report, Row};

impl Report {
    /// Returns the report as text for a terminal: aligned rows, fits and conclusions.
    pub fn table(&self) -> String {
        let (heads, rows) = self.cells();
        let mut text = aligned(heads.into_iter().map(str::to_owned).collect(), rows);
        let unit = self.unit.name();
        text += &format!("\nmutual information in {unit}, mean ± standard error");
        if let Some(Row { estimates: PointEstimate { length, pairing_errors, .. }, .. }) = self.rows.last() {
            let PairingErrors { same, crossed } = pairing_errors;
            let [same, crossed] = [same, crossed].map(|error| significant(*error, 2));
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "; direct at L = {length}: ± {same} with the same y in both terms, \
                 ± {crossed} with the partner's y in the marginal term"
            );
        }
        text.push('\n');
        text += &self.averaged_text();
        text += &self.convergence_text();
        text += &self.fits_text();
        text += &self.laws_text();
        text += &self.entropy_rate_text();
        text += &self.divergence_lines();
        text += &self.two_point_text();
        text += &self.entropies_text();
        for summary in Omission::summaries(&self.left_out) {
            let _ = writeln!(text, "left out of the corpus: {summary}");
        }
        text + &self.reading().map_or_else(String::new, |reading| format!("\n{reading}\n"))
    }
}
