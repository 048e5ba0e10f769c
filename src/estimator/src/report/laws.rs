//! The laws of growth and the local exponents of a report, as text, HTML and CSV.

use std::fmt::Write as _;

use surprisal_chart::escape_quotes as escape;

use crate::estimate::{LocalExponent, Sampling, SeriesLaws};
use crate::fit::{Law, LawFit};
use crate::report::Report;
use crate::value::Estimate;

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
        for laws in &self.laws {
            for fit in &laws.laws {
                let (series, name, ratio) = (laws.series.name(), fit.law.name(), laws.ratio);
                let (chi2, dof, p, above) = (fit.chi2, fit.dof, p_value(fit.p), above_best(laws, fit));
                // Writing to a String cannot fail.
                let _ = writeln!(
                    text,
                    "{series:>12}   L/ℓ = {ratio}, {name:<19}   T² = {chi2:>7.1}   k = {dof}   {p:<11}   +{above:<6.1}   {}",
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
        let mut rows = String::new();
        for laws in &self.laws {
            for fit in &laws.laws {
                let verdict = if fit.is_rejected() { "rejected" } else { "not rejected" };
                let _ = writeln!(
                    rows,
                    "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{verdict}</td>\
                     <td>{:.1}</td><td>{}</td></tr>",
                    laws.series.name(),
                    laws.ratio,
                    fit.law.name(),
                    fit.chi2,
                    fit.dof,
                    p_value(fit.p),
                    above_best(laws, fit),
                    escape(&parameters(fit)),
                );
            }
        }
        let heads = ["series", "L/ℓ", "law", "T²", "k", "test", "at 5 %", "ΔAICc", "parameters"];
        let laws = if rows.is_empty() { String::new() } else { table(&heads, &rows) };
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
        let mut rows = String::new();
        for local in &self.local_exponents {
            let LocalExponent { ratio, series, from, to, exponent, interval } = local;
            let interval = interval.map_or(String::new(), |[low, high]| format!("{low:.3} to {high:.3}"));
            let _ = writeln!(
                rows,
                "<tr><td>{}</td><td>{ratio}</td><td>{from} to {to}</td><td>{exponent:.3}</td><td>{interval}</td></tr>",
                series.name(),
            );
        }
        let heads = ["series", "L/ℓ", "L", "local exponent", "95 % interval"];
        format!("<details>\n<summary>Local exponents</summary>\n{}</details>\n", table(&heads, &rows))
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
    match p {
        _ if p < 1e-15 => "p < 1e-15".to_owned(),
        _ if p < 1e-3 => format!("p = {p:.0e}"),
        _ => format!("p = {p:.2}"),
    }
}

/// Returns a law's AICc above the smallest of the series.
fn above_best(laws: &SeriesLaws, fit: &LawFit) -> f64 {
    fit.aicc - laws.best().map_or(fit.aicc, |best| best.aicc)
}

/// Returns the parameters with their errors, or marks that they are not determined.
fn parameters(fit: &LawFit) -> String {
    let mut parts = Vec::new();
    for (index, name) in fit.law.parameters().iter().enumerate() {
        let value = fit.parameters[index];
        parts.push(match &fit.errors {
            Some(errors) => format!("{name} = {}", Estimate::new(value, errors[index])),
            None => format!("{name} = {value:.3}"),
        });
    }
    let mark = if fit.errors.is_none() { " (at a bound)" } else { "" };
    parts.join(", ") + mark
}

fn table(heads: &[&str], rows: &str) -> String {
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    format!(
        "<div class=\"scroll\"><table class=\"names\">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n"
    )
}
