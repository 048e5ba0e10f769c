//! entropy-rate.csv: the entropy rate of a report, one row per quantity.

use std::fmt::Write as _;

use crate::estimate::{RateFit, RateFits, TextUnit, UnitRates};
use crate::fit::RateLaw;
use crate::report::Report;
use crate::report::csv::cells;
use crate::value::Estimate;

/// One row of the file. Cells that do not apply are empty.
struct Row<'a> {
    quantity: &'a str,
    /// The fit that the quantity is from.
    fit: Option<(&'a RateFits, &'a RateFit)>,
    /// The first and the last position that the quantity describes; for a parameter of a law, those of the fit.
    positions: [usize; 2],
    /// The unit of text: `token`, `character`, `byte`, or empty.
    per: &'a str,
    value: Value,
    unit: &'a str,
}

/// A quantity's value.
enum Value {
    Estimate(Estimate),
    /// A value whose error is not computed.
    Alone(f64),
}

impl Report {
    /// Returns the file; `None` if the report has no entropy rate.
    pub(crate) fn entropy_rate_csv(&self) -> Option<String> {
        let rate = self.entropy_rate.as_ref()?;
        let (unit, window) = (self.unit.name(), rate.window);
        let (whole, tail) = ([1, window], [rate.tail_first(), window]);
        let mut rows = Vec::new();
        for (positions, rates) in [(tail, &rate.tail), (whole, &rate.whole)] {
            let row = |per, value| Row { quantity: "surprisal", fit: None, positions, per, value, unit };
            rows.extend(in_units(rates).map(|(per, estimate)| row(per, Value::Estimate(estimate))));
        }
        for (quantity, size) in [("characters", rate.characters_per_token), ("bytes", rate.bytes_per_token)] {
            let row = |estimate| Row {
                quantity,
                fit: None,
                positions: tail,
                per: "token",
                value: Value::Estimate(estimate),
                unit: "",
            };
            rows.extend(size.map(row));
        }
        for block in &rate.blocks {
            let (positions, value) = ([1, 2 * block.length], Value::Estimate(block.information));
            rows.push(Row { quantity: "block information", fit: None, positions, per: "", value, unit });
        }
        if let Some((exponent, first)) = rate.local_exponent.zip(rate.local_exponent_first()) {
            rows.push(Row {
                quantity: "local exponent",
                fit: None,
                positions: [first, window],
                per: "",
                value: Value::Estimate(exponent),
                unit: "",
            });
        }
        for fits in &rate.fits {
            for fit in &fits.laws {
                rows.extend(fit_rows(fits, fit, [whole, tail], unit));
            }
        }
        let mut csv = "quantity,law,first,last,per,value,error,low,high,t2,dof,p,aicc,doubt,unit\n".to_owned();
        rows.iter().for_each(|row| row.write(&mut csv));
        Some(csv)
    }
}

/// Returns each rate with the name of its unit.
fn in_units(rates: &UnitRates) -> impl Iterator<Item = (&'static str, Estimate)> {
    let others = TextUnit::ALL.into_iter().filter_map(|unit| Some((unit.name(), rates.get(unit)?)));
    std::iter::once(("token", rates.token)).chain(others)
}

/// Returns the rows of a fit. `whole` and `tail` are the positions of the window and of its last octave.
fn fit_rows<'a>(fits: &'a RateFits, fit: &'a RateFit, [whole, tail]: [[usize; 2]; 2], unit: &'a str) -> Vec<Row<'a>> {
    let fitted = [fits.first, whole[1]];
    let row =
        |quantity, positions, per, value, unit| Row { quantity, fit: Some((fits, fit)), positions, per, value, unit };
    let rate = |(per, estimate)| row("entropy rate", fitted, per, Value::Estimate(estimate), unit);
    let mut rows: Vec<Row<'_>> = in_units(&fit.rate).map(rate).collect();
    let amplitude_unit = if fit.law.has_information_amplitude() { unit } else { "" };
    let amplitude = |amplitude| row("amplitude", fitted, "", Value::Alone(amplitude), amplitude_unit);
    rows.extend(fit.amplitude.map(amplitude));
    rows.extend(fit.exponent.map(|exponent| row("exponent", fitted, "", Value::Estimate(exponent), "")));
    rows.push(row("below last octave", tail, "token", Value::Estimate(fit.below_tail), unit));
    rows.push(row("excess entropy", whole, "", Value::Estimate(fit.excess), unit));
    rows
}

impl Row<'_> {
    fn write(&self, csv: &mut String) {
        let Self { quantity, positions: [first, last], per, value, unit, .. } = self;
        let law = self.fit.map_or("", |(_, fit)| fit.law.name());
        let cells = match value {
            Value::Estimate(estimate) => cells(estimate),
            Value::Alone(value) => format!("{value},,,"),
        };
        let test = self
            .fit
            .map_or(",,,".to_owned(), |(_, RateFit { chi2, dof, p, aicc, .. })| format!("{chi2},{dof},{p},{aicc}"));
        // Writing to a String cannot fail.
        let doubt = self.doubt();
        let _ = writeln!(csv, "{quantity},{law},{first},{last},{per},{cells},{test},{doubt},{unit}");
    }

    /// Returns the reason why the data do not determine the quantity; an empty string if they do.
    fn doubt(&self) -> String {
        let doubt = self.fit.and_then(|(fits, fit)| match self.quantity {
            "exponent" | "amplitude" => fits.exponent_doubt(fit).filter(|_| fit.law != RateLaw::Constant),
            _ => fits.rate_doubt(fit),
        });
        doubt.map_or(String::new(), |doubt| doubt.to_string())
    }
}
