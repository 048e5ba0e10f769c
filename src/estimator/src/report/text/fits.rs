//! The power-law fits as text.

use std::fmt::Write as _;

use crate::fit::Fit;
use crate::report::{Report, SeriesFit};

impl Report {
    /// Returns the power laws, one a line.
    pub(super) fn fits_text(&self) -> String {
        let mut text = "power laws in L, ± standard error, the exponent's 95 % interval in brackets:\n".to_owned();
        let width = self.series_width();
        for SeriesFit { ratio, series, fit } in &self.fits {
            let (series, method, rest) = (series.name(), fit.method.name(), left_out(fit));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{series:>width$}   L/ℓ = {ratio}, {method:<13}   {fit}{rest}");
        }
        text
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
