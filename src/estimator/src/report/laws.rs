//! The laws of growth and the local exponents of a report, as text, HTML and CSV.

use std::fmt::Write as _;

use surprisal_chart::escape_quotes as escape;

use crate::estimate::{LocalExponent, Sampling, SeriesLaws};
use crate::fit::{Law, LawFit};
use crate::number::{significant, with_error};
use crate::report::Report;
use crate::report::html::table;

/// The p-value below which only this limit is shown: its digits are rounding errors.
const SMALLEST_P: f64 = 1e-15;

impl Report {
    /// Returns one line for each law of each series; an empty string if there are none.
    pub(crate) fn laws_text(&self) -> String {
        if self.laws.is_empty() {
            return String::new();
        }
        let mut text =
            "laws fitted with the covariance between lengths: T², degrees of freedom, p-value, AICc above the \
                        best law's, parameters:\n"
                .to_owned();
        let width = self.series_width();
        for laws in &self.laws {
            for fit in &laws.laws {
                let (series, name, ratio) = (laws.series.name(), fit.law.name(), laws.ratio);
                let (chi2, dof, p, above) = (fit.chi2, fit.dof, p_value(fit.p), above_best(laws, fit));
                // Writing to a String cannot fail.
                let _ = writeln!(
                    text,
                    "{series:>width$}   L/ℓ = {ratio}, {name:<19}   T² = {chi2:>7.1}   k = {dof}   {p:<11}   +{above:<6.1}   {}",
                    parameters(fit)
                );
            }
        }
        text
    }

    /// Returns the HTML section with the laws and the local exponents; an empty string if there are none.
    pub(crate) fn laws_section(&self) -> String {
        if self.laws.is_empty() && self.local_exponents.is_empty() {
            return String::new();
        }
        let mut rows = Vec::new();
        for laws in &self.laws {
            for fit in &laws.laws {
                rows.push(vec![
                    laws.series.name().to_owned(),
                    laws.ratio.to_string(),
                    fit.law.name().to_owned(),
                    format!("{:.1}", fit.chi2),
                    fit.dof.to_string(),
                    escape(&p_value(fit.p)),
                    if fit.is_rejected() { "rejected" } else { "not rejected" }.to_owned(),
                    format!("{:.1}", above_best(laws, fit)),
                    format!("<span class=\"long\">{}</span>", escape(&parameters(fit))),
                ]);
            }
        }
        let heads = ["series", "L/ℓ", "law", "T²", "k", "test", "at 5 %", "ΔAICc", "parameters"].map(str::to_owned);
        let laws = if rows.is_empty() { String::new() } else { table(true, &heads, &rows) };
        format!(
            "<section>\n<h2>Laws of growth</h2>\n{laws}<p class=\"small\">Each law is fitted by generalized least squares \
             with the covariance between lengths, because all lengths share documents. T² is the sum of squared \
             residuals in units of their covariance, with k degrees of freedom. A small p-value rejects the law. ΔAICc is \
             the law’s AICc above that of the best law for the same data. {}</p>\n{}</section>\n",
            Law::ALL.map(|law| format!("{}: {}.", law.name(), escape(law.formula()))).join(" "),
            self.local_exponents_table(),
        )
    }

    fn local_exponents_table(&self) -> String {
        if self.local_exponents.is_empty() {
            return String::new();
        }
        let mut rows = Vec::with_capacity(self.local_exponents.len());
        for LocalExponent { ratio, series, from, to, exponent, interval } in &self.local_exponents {
            rows.push(vec![
                series.name().to_owned(),
                ratio.to_string(),
                format!("{from} to {to}"),
                format!("{exponent:.3}"),
                interval.map_or(String::new(), |[low, high]| format!("{low:.3} to {high:.3}")),
            ]);
        }
        let heads = ["series", "L/ℓ", "L", "local exponent", "95 % interval"].map(str::to_owned);
        format!("<details>\n<summary>Local exponents</summary>\n{}</details>\n", table(true, &heads, &rows))
    }

    pub(crate) fn laws_csv(&self) -> String {
        let mut csv = "ratio,series,law,t2,dof,freedom,p,aicc,parameter,value,error,sampling,unit\n".to_owned();
        for laws in &self.laws {
            let sampling = match laws.sampling {
                Sampling::Clusters => "clusters",
                Sampling::Within => "within",
            };
            for fit in &laws.laws {
                for (index, name) in fit.law.parameters().iter().enumerate() {
                    let error = fit.errors.as_ref().map_or(String::new(), |errors| errors[index].to_string());
                    let _ = writeln!(
                        csv,
                        "{},{},{},{},{},{},{},{},{name},{},{error},{sampling},{}",
                        laws.ratio,
                        laws.series.name(),
                        fit.law.name(),
                        fit.chi2,
                        fit.dof,
                        laws.freedom,
                        fit.p,
                        fit.aicc,
                        fit.parameters[index],
                        self.unit.name()
                    );
                }
            }
        }
        csv
    }

    pub(crate) fn local_exponents_csv(&self) -> String {
        let mut csv = "ratio,series,from,to,exponent,low,high\n".to_owned();
        for LocalExponent { ratio, series, from, to, exponent, interval } in &self.local_exponents {
            let ends = interval.map_or(",".to_owned(), |[low, high]| format!("{low},{high}"));
            let _ = writeln!(csv, "{ratio},{},{from},{to},{exponent},{ends}", series.name());
        }
        csv
    }
}

/// Returns a p-value as text, such as `p = 0.31` or `p = 5e-5`.
pub(crate) fn p_value(p: f64) -> String {
    if p < SMALLEST_P { format!("p {}", p_cell(p)) } else { format!("p = {}", p_cell(p)) }
}

/// Returns a p-value as the cell of a table, such as `0.31`, `5e-5` or `< 1e-15`.
pub(crate) fn p_cell(p: f64) -> String {
    match p {
        _ if p < SMALLEST_P => format!("< {SMALLEST_P:e}"),
        _ if p < 1e-3 => format!("{p:.0e}"),
        _ => significant(p, 2),
    }
}

/// Returns a law's AICc above the smallest of the series.
fn above_best(laws: &SeriesLaws, fit: &LawFit) -> f64 {
    fit.aicc - laws.best().map_or(fit.aicc, |best| best.aicc)
}

/// Returns the parameters with their errors, or marks that these are not determined.
fn parameters(fit: &LawFit) -> String {
    let mut parts = Vec::new();
    for (index, name) in fit.law.parameters().iter().enumerate() {
        let value = fit.parameters[index];
        parts.push(match &fit.errors {
            Some(errors) => format!("{name} = {}", with_error(value, errors[index])),
            None => format!("{name} = {}", significant(value, 3)),
        });
    }
    let mark = if fit.errors.is_none() { " (errors not determined)" } else { "" };
    parts.join(", ") + mark
}
