//! The table of power-law fits.

use surprisal_chart::escape_quotes as escape;

use crate::number::{significant, with_error};
use crate::report::html::table_section;
use crate::report::text::left_out;
use crate::report::{Report, SeriesFit};

impl Report {
    pub(super) fn fits_section(&self) -> String {
        if self.fits.is_empty() {
            return String::new();
        }
        let amplitude = format!("A ({})", self.unit.name());
        let heads = ["series", "L/ℓ", "fit", &amplitude, "β", "95 % interval of β", "c"].map(str::to_owned);
        let rows: Vec<Vec<String>> = self.fits.iter().map(fit_row).collect();
        let note = "<p class=\"small\">There are three fits: least squares of ln I on ln L with equal weights, the same fit \
                    weighted by inverse variance, and least squares of the relative error of I, with a bias c in the \
                    unit of A. Errors are standard errors; intervals come from resampling texts.</p>\n";
        table_section("Power laws I = A·L<sup>β</sup> + c", true, &heads, &rows, note)
    }
}

/// Returns one row of the table of fits.
fn fit_row(SeriesFit { ratio, series, fit }: &SeriesFit) -> Vec<String> {
    vec![
        format!("{}{}", series.name(), escape(&left_out(fit))),
        ratio.to_string(),
        fit.method.name().to_owned(),
        fit.amplitude_error.map_or_else(|| significant(fit.amplitude, 3), |error| with_error(fit.amplitude, error)),
        fit.exponent_error.map_or_else(|| format!("{:.3}", fit.exponent), |error| with_error(fit.exponent, error)),
        fit.exponent_interval.map_or(String::new(), |[low, high]| format!("{low:.3} to {high:.3}")),
        fit.bias.map_or(String::new(), |bias| {
            significant(bias, 3) + if fit.bias_at_bound { " (at its bound)" } else { "" }
        }),
    ]
}
