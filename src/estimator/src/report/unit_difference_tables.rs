//! The tables of a comparison that show surprisal per byte and per character, in bits.

use std::fmt::Write as _;

use crate::estimate::TextUnit;
use crate::report::Report;
use crate::report::compare::Comparison;
use crate::report::csv::cells;
use crate::report::difference_tables::with_error_and_interval;
use crate::report::html::{escaped, table_section};
use crate::report::text::aligned;
use crate::report::unit_differences::{SurprisalDifference, WindowPart, bits, surprisal_differences, window_bytes};

/// The heading of the tables.
const HEADING: &str = "Surprisal per byte and per character, in bits";

/// The explanation below the tables.
const NOTE: &str = "Bits per byte and per character are comparable between tokenizers. With the same number of tokens, \
                    windows of a tokenizer with longer tokens have more bytes, and so more context.";

impl Comparison {
    /// Returns the differences of surprisal per character and per byte between the report with this name and the first
    /// report, in bits. There are none for the first report, for an unknown name, for different texts, and if a report
    /// has no surprisal per byte.
    pub fn surprisal_differences(&self, name: &str) -> Vec<SurprisalDifference> {
        let ((_, first), others) = self.first_and_others();
        let other = others.iter().find(|(other, _)| other == name);
        other.map_or_else(Vec::new, |(_, other)| surprisal_differences(first, other))
    }

    /// Returns the table as text; an empty string if no report has surprisal per byte.
    pub(crate) fn surprisal_text(&self) -> String {
        let (heads, rows) = self.surprisal_cells();
        match rows.is_empty() {
            true => String::new(),
            false => format!("\n{HEADING}, ± standard error [95 % interval]:\n{}{NOTE}\n", aligned(heads, rows)),
        }
    }

    /// Returns the table as a section; an empty string if no report has surprisal per byte.
    pub(crate) fn surprisal_section(&self) -> String {
        let (heads, rows) = self.surprisal_cells();
        if rows.is_empty() {
            return String::new();
        }
        let (heads, rows) = escaped(heads, rows);
        let note =
            format!("<p class=\"small\">{} {NOTE}</p>\n", "Values ± standard error, with 95 % intervals in brackets.");
        table_section(HEADING, true, &heads, &rows, &note)
    }

    /// Returns the headings and the cells: one row for each report with surprisal per byte, unit and part of the window.
    fn surprisal_cells(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let ((first, _), _) = self.first_and_others();
        let minus = format!("minus {first}");
        let heads = ["report", "per", "positions", "surprisal", &minus, "bytes per window"].map(str::to_owned);
        let mut rows = Vec::new();
        for (name, report, part, per, estimate) in self.surprisals() {
            let difference = self.surprisal_difference(name, part, per);
            rows.push(vec![
                name.to_owned(),
                per.name().to_owned(),
                part.name().to_owned(),
                with_error_and_interval(&estimate),
                difference.map_or_else(|| "–".to_owned(), |found| with_error_and_interval(&found.estimate)),
                window_bytes(report).map_or_else(|| "–".to_owned(), |bytes| format!("{bytes:.0}")),
            ]);
        }
        (heads.to_vec(), rows)
    }

    /// Returns the table as CSV; `None` if no report has surprisal per byte.
    pub(crate) fn surprisal_csv(&self) -> Option<String> {
        let mut csv = "name,per,positions,value,error,low,high,difference,difference_error,difference_low,\
                       difference_high,bytes,unit\n"
            .to_owned();
        let surprisals = self.surprisals();
        for (name, report, part, per, estimate) in &surprisals {
            let difference = self.surprisal_difference(name, *part, *per);
            let difference = difference.map_or(",,,".to_owned(), |found| cells(&found.estimate));
            let bytes = window_bytes(report).map_or(String::new(), |bytes| bytes.to_string());
            let (name, cells) = (name.replace(['"', ',', '\n'], " "), cells(estimate));
            // Writing to a String cannot fail.
            let _ = writeln!(csv, "{name},{},{},{cells},{difference},{bytes},bits", per.name(), part.name());
        }
        (!surprisals.is_empty()).then_some(csv)
    }

    fn surprisal_difference(&self, name: &str, part: WindowPart, per: TextUnit) -> Option<SurprisalDifference> {
        self.surprisal_differences(name).into_iter().find(|found| (found.part, found.per) == (part, per))
    }

    fn surprisals(&self) -> Vec<(&str, &Report, WindowPart, TextUnit, crate::value::Estimate)> {
        let mut found = Vec::new();
        for per in [TextUnit::Byte, TextUnit::Character] {
            for part in WindowPart::ALL {
                for (name, report) in self.reports() {
                    found.extend(bits(report, part, per).map(|estimate| (name.as_str(), report, part, per, estimate)));
                }
            }
        }
        found
    }
}
