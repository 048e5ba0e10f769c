//! The report: estimates beside the truth where it is known, their fits, and how they were made; as JSON and as text.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{Estimate, Estimates, Fit, Model, NgramEntropy, Pairing, Process, SplitEstimate};

/// What a column, a curve or a fit shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// The process's mutual information.
    Truth,
    /// The direct estimator.
    Direct,
    /// The direct estimator with the n-gram correction.
    Corrected,
    /// vCLUB.
    Vclub,
    /// What vCLUB converges to.
    VclubLimit,
}

impl Series {
    /// All of them, in the order of columns.
    pub const ALL: [Series; 5] = [Series::Truth, Series::Direct, Series::Corrected, Series::Vclub, Series::VclubLimit];

    /// In a table's head.
    pub fn name(self) -> &'static str {
        match self {
            Series::Truth => "truth",
            Series::Direct => "direct",
            Series::Corrected => "corrected",
            Series::Vclub => "vCLUB",
            Series::VclubLimit => "vCLUB limit",
        }
    }
}

/// One split of the report; all values in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The lengths, and the estimates.
    #[serde(flatten)]
    pub estimates: SplitEstimate,
    /// The process's mutual information, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<f64>,
    /// What vCLUB converges to, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vclub_limit: Option<f64>,
}

impl Row {
    /// The value of a series in this row; what is known exactly has error 0.
    pub fn get(&self, series: Series) -> Option<Estimate> {
        let exact = |value| Estimate { value, error: 0.0 };
        match series {
            Series::Truth => self.truth.map(exact),
            Series::Direct => Some(self.estimates.direct),
            Series::Corrected => self.estimates.corrected,
            Series::Vclub => Some(self.estimates.vclub),
            Series::VclubLimit => self.vclub_limit.map(exact),
        }
    }
}

/// A power law through one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesFit {
    /// Through what.
    pub series: Series,
    /// The power law of `L`.
    #[serde(flatten)]
    pub fit: Fit,
}

/// All there is to tell about an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// The model's name.
    pub model: String,
    /// What the numbers depend on.
    pub fingerprint: String,
    /// The version of this crate.
    pub version: String,
    /// How many documents.
    pub documents: usize,
    /// Which marginal stood beside which conditional term.
    pub pairing: Pairing,
    /// The entropy of the n-gram correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ngram_entropy: Option<NgramEntropy>,
    /// The weight of that entropy in the correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ngram_weight: Option<f64>,
    /// One for each split, shortest first.
    pub rows: Vec<Row>,
    /// One for each series that has at least two positive points.
    pub fits: Vec<SeriesFit>,
    /// How it was made: corpus, seeds, command.
    pub notes: Vec<String>,
}

impl Report {
    /// A report of `estimates` by `model`.
    pub fn new(title: impl Into<String>, model: &Model, estimates: &Estimates) -> Self {
        let row = |&estimates: &SplitEstimate| Row { estimates, truth: None, vclub_limit: None };
        let mut report = Self {
            title: title.into(),
            model: model.name.clone(),
            fingerprint: model.fingerprint.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            documents: estimates.documents,
            pairing: estimates.pairing,
            ngram_entropy: estimates.correction.map(|correction| correction.entropy),
            ngram_weight: estimates.correction.map(|correction| correction.weight),
            rows: estimates.splits.iter().map(row).collect(),
            fits: Vec::new(),
            notes: Vec::new(),
        };
        report.fit();
        report
    }

    /// Puts the process's truth, and what vCLUB converges to on its oracle, beside the estimates.
    #[must_use]
    pub fn with_truth(mut self, process: &impl Process) -> Self {
        for row in &mut self.rows {
            let (m, n) = (row.estimates.split, row.estimates.length - row.estimates.split);
            row.truth = Some(process.mutual_information(m, n));
            row.vclub_limit = Some(process.vclub_limit(m, n));
        }
        self.fit();
        self
    }

    /// Adds a line on how it was made.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The series that this report has.
    pub fn series(&self) -> Vec<Series> {
        let present = |series: &Series| self.rows.iter().any(|row| row.get(*series).is_some());
        Series::ALL.into_iter().filter(present).collect()
    }

    /// The points `(L, estimate)` of a series.
    pub fn points(&self, series: Series) -> Vec<(f64, Estimate)> {
        let point = |row: &Row| Some((row.estimates.length as f64, row.get(series)?));
        self.rows.iter().filter_map(point).collect()
    }

    fn fit(&mut self) {
        let fit = |series| {
            let points: Vec<_> = self.points(series).iter().map(|(length, e)| (*length, e.value)).collect();
            Fit::of(&points).map(|fit| SeriesFit { series, fit })
        };
        self.fits = self.series().into_iter().filter_map(fit).collect();
    }

    /// The column heads, and the cells of each row, as shown in text and HTML.
    pub(crate) fn cells(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let series = self.series();
        let heads = ["L", "ℓ"].into_iter().chain(series.iter().map(|series| series.name())).collect();
        let show = |row: &Row, series: &Series| match row.get(*series) {
            None => "–".to_owned(),
            Some(exact) if matches!(series, Series::Truth | Series::VclubLimit) => {
                format!("{:.3}", exact.value)
            }
            Some(estimate) => estimate.to_string(),
        };
        let cells = |row: &Row| {
            let lengths = [row.estimates.length.to_string(), row.estimates.split.to_string()];
            lengths.into_iter().chain(series.iter().map(|series| show(row, series))).collect()
        };
        (heads, self.rows.iter().map(cells).collect())
    }

    /// The rows and fits as aligned text for a terminal.
    pub fn table(&self) -> String {
        let (heads, rows) = self.cells();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            padded.join("   ") + "\n"
        };
        let mut text = line(&mut heads.iter().copied());
        for row in &rows {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text += "\nmutual information in nats; fits of ln I on ln L:\n";
        for SeriesFit { series, fit } in &self.fits {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:>12}   {fit}{}", series.name(), left_out(fit));
        }
        text
    }
}

/// ` (without L = 4, 8: not positive)`, or nothing.
pub(crate) fn left_out(fit: &Fit) -> String {
    if fit.left_out.is_empty() {
        return String::new();
    }
    let lengths: Vec<String> = fit.left_out.iter().map(ToString::to_string).collect();
    format!("  (without L = {}: not positive)", lengths.join(", "))
}
