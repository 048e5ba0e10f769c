//! The tables of a comparison that show differences to the first report.

use std::fmt::Write as _;

use surprisal_chart::escape_quotes as escape;

use crate::report::Report;
use crate::report::alignment::Alignment;
use crate::report::compare::Comparison;
use crate::report::differences::{Difference, ExponentDifference, differences, exponent_differences};
use crate::report::html::table_section;
use crate::value::Estimate;

impl Comparison {
    /// Returns the sentences on the documents and settings of the reports, and the tables of their differences.
    pub(crate) fn differences_text(&self, width: usize) -> String {
        let ((first, _), others) = self.first_and_others();
        let mut text = format!("\n{}\n", self.statements().join("\n"));
        let exponents: Vec<_> =
            others.iter().flat_map(|other| with_name(other, self.exponent_differences(&other.0))).collect();
        if !exponents.is_empty() {
            let _ = writeln!(text, "\nexponents minus those of {first}, ± standard error [95 % interval]:");
        }
        for (name, ExponentDifference { series, ratio, estimate }) in exponents {
            let (series, estimate) = (series.name(), with_error_and_interval(&estimate));
            let _ = writeln!(text, "{name:<width$}   L/ℓ = {ratio}   {series:>9}   {estimate}");
        }
        let differences: Vec<_> =
            others.iter().flat_map(|other| with_name(other, self.differences(&other.0))).collect();
        if !differences.is_empty() {
            let unit = self.unit();
            let _ = writeln!(text, "\nestimates minus those of {first}, in {unit}, ± standard error [95 % interval]:");
        }
        for (name, Difference { series, ratio, length, estimate }) in differences {
            let (series, estimate) = (series.name(), with_error_and_interval(&estimate));
            let _ = writeln!(text, "{name:<width$}   L/ℓ = {ratio}   {series:>9}   L = {length:<6}   {estimate}");
        }
        text
    }

    /// Returns the differences of the report with this name to the first report, at the points that both have, in the
    /// unit of the comparison. There are none for the first report, for an unknown name, and if estimates at the same
    /// `L` measure different quantities or may do so.
    pub fn differences(&self, name: &str) -> Vec<Difference> {
        match self.aligned(name) {
            Some((first, other, alignment)) if alignment.has_differences() => {
                differences(first, other, alignment == Alignment::SameDocuments)
            }
            _ => Vec::new(),
        }
    }

    /// Returns the differences between the exponents of the report with this name and those of the first report. There
    /// are none unless the reports measure the same documents and have their terms.
    pub fn exponent_differences(&self, name: &str) -> Vec<ExponentDifference> {
        match self.aligned(name) {
            Some((first, other, Alignment::SameDocuments)) => exponent_differences(first, other),
            _ => Vec::new(),
        }
    }

    /// Returns the first report, the report with this name, and their alignment; `None` for the first report.
    fn aligned(&self, name: &str) -> Option<(&Report, &Report, Alignment)> {
        let ((_, first), others) = self.first_and_others();
        let (_, other) = others.iter().find(|(other, _)| other == name)?;
        Some((first, other, Alignment::of(first, other)))
    }

    /// Returns the tables of the differences; an empty string if there are none.
    pub(crate) fn differences_section(&self) -> String {
        let ((first, _), others) = self.first_and_others();
        let (mut rows, mut exponents) = (Vec::new(), Vec::new());
        for (name, Difference { series, ratio, length, estimate }) in
            others.iter().flat_map(|other| with_name(other, self.differences(&other.0)))
        {
            let cells = vec![escape(name), series.name().to_owned(), ratio.to_string(), length.to_string()];
            rows.push([cells, value_and_interval(&estimate)].concat());
        }
        for (name, ExponentDifference { series, ratio, estimate }) in
            others.iter().flat_map(|other| with_name(other, self.exponent_differences(&other.0)))
        {
            let cells = vec![escape(name), series.name().to_owned(), ratio.to_string()];
            exponents.push([cells, value_and_interval(&estimate)].concat());
        }
        let (first, mut sections) = (escape(first), String::new());
        if !rows.is_empty() {
            let heads = ["report", "series", "L/ℓ", "L", "difference", "95 % interval"].map(str::to_owned);
            let heading = format!("Estimates minus those of {first}, in {}, ± standard error", self.unit());
            sections += &table_section(&heading, true, &heads, &rows, "");
        }
        if !exponents.is_empty() {
            let heads = ["report", "series", "L/ℓ", "difference of β", "95 % interval"].map(str::to_owned);
            let heading = format!("Exponents minus those of {first}, ± standard error");
            sections += &table_section(&heading, true, &heads, &exponents, "");
        }
        sections
    }
}

/// Returns each item with the name of the report that it belongs to.
fn with_name<T>((name, _): &(String, Report), items: Vec<T>) -> impl Iterator<Item = (&str, T)> {
    items.into_iter().map(move |item| (name.as_str(), item))
}

/// Returns a difference's value with its error, and its interval, which is empty if the difference is not paired.
fn value_and_interval(estimate: &Estimate) -> Vec<String> {
    let decimals = decimals(estimate);
    let interval = estimate.interval;
    let interval = interval.map_or(String::new(), |[low, high]| format!("{low:.decimals$} to {high:.decimals$}"));
    vec![estimate.to_string(), interval]
}

/// Returns a value with its error, and its interval in brackets if it has one: `5.50 ± 0.71 [4.10, 6.90]`.
pub(crate) fn with_error_and_interval(estimate: &Estimate) -> String {
    let decimals = decimals(estimate);
    let interval = estimate.interval;
    let interval = interval.map_or(String::new(), |[low, high]| format!(" [{low:.decimals$}, {high:.decimals$}]"));
    format!("{estimate}{interval}")
}

/// Returns the decimals for two significant digits of the error, at most 6.
fn decimals(estimate: &Estimate) -> usize {
    if estimate.error > 0.0 { (1.0 - estimate.error.log10().floor()).clamp(0.0, 6.0) as usize } else { 4 }
}
