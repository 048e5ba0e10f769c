//! The report: estimates beside the truth where it is known, their fits, and how they were made; as JSON and as text.
//!
//! Start with [`Report::new`]. `html` writes the page, `csv` the tables, `figures` the charts, which `plot` draws; `compare` puts several
//! reports side by side.

mod compare;
mod convert;
mod csv;
mod escape;
mod figures;
mod html;
mod plot;

pub use compare::Comparison;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::corpus::CorpusStatistics;
use crate::estimate::{Estimates, PairingErrors, PointEstimate, Series};
use crate::fit::{Fit, Method};
use crate::plan::{Cost, Pairing};
use crate::process::Process;
use crate::source::Model;
use crate::statistics::{NgramEntropy, TwoPoint};
use crate::unit::Unit;
use crate::value::Estimate;

/// One point of the report; all values in the report's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The lengths, and the estimates.
    #[serde(flatten)]
    pub estimates: PointEstimate,
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
        let exact = |value| Estimate::new(value, 0.0);
        match series {
            Series::Truth => self.truth.map(exact),
            Series::VclubLimit => self.vclub_limit.map(exact),
            Series::Direct | Series::Corrected | Series::Vclub => self.estimates.get(series),
        }
    }
}

/// A power law through one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesFit {
    /// `L/ℓ`.
    pub ratio: usize,
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
    /// [`Experiment::digest`](crate::spec::Experiment::digest) of what was asked, where it was an experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The experiment's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What information is given in.
    #[serde(default)]
    pub unit: Unit,
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
    /// One for each point: by ratio, then shortest first.
    pub rows: Vec<Row>,
    /// By ratio and method, one for each series that has enough positive points.
    pub fits: Vec<SeriesFit>,
    /// `nll[t]`: the mean of `-ln q(x_t | x_0 .. x_(t-1))` over documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nll: Vec<Estimate>,
    /// The model's Kullback-Leibler divergence from the process that made the documents, over a window: where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Estimate>,
    /// The corpus's two-point mutual information, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_point: Option<TwoPoint>,
    /// The corpus in numbers, where it is of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus: Option<CorpusStatistics>,
    /// What was asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// How it was made: corpus, seeds, command.
    pub notes: Vec<String>,
}

impl Report {
    /// A report of `estimates` by `model`, in nats.
    pub fn new(title: impl Into<String>, model: &Model, estimates: &Estimates) -> Self {
        let row = |&estimates: &PointEstimate| Row { estimates, truth: None, vclub_limit: None };
        let mut report = Self {
            title: title.into(),
            model: model.name.clone(),
            fingerprint: model.fingerprint.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: None,
            seed: None,
            unit: Unit::Nats,
            documents: estimates.documents,
            pairing: estimates.pairing,
            ngram_entropy: estimates.correction.map(|correction| correction.entropy),
            ngram_weight: estimates.correction.map(|correction| correction.weight),
            rows: estimates.points.iter().map(row).collect(),
            fits: Vec::new(),
            nll: estimates.nll.clone(),
            divergence: None,
            two_point: None,
            corpus: None,
            cost: None,
            notes: Vec::new(),
        };
        report.fit(&[Series::Direct, Series::Corrected, Series::Vclub], &Method::ALL);
        for SeriesFit { ratio, series, fit } in &mut report.fits {
            let same =
                estimates.exponents.iter().find(|e| (e.ratio, e.series, e.method) == (*ratio, *series, fit.method));
            fit.exponent_interval = same.map(|exponent| exponent.interval);
        }
        report
    }

    /// Puts the process's truth, and what vCLUB converges to on its oracle, beside the estimates.
    ///
    /// # Panics
    /// If the process does not reach as far as the estimates.
    #[must_use]
    pub fn with_truth(mut self, process: &impl Process) -> Self {
        let nats = self.unit;
        self = self.in_unit(Unit::Nats);
        for row in &mut self.rows {
            let (m, n) = (row.estimates.split, row.estimates.length - row.estimates.split);
            row.truth = Some(process.mutual_information(m, n));
            row.vclub_limit = Some(process.vclub_limit(m, n));
        }
        self.fit(&[Series::Truth, Series::VclubLimit], &[Method::LeastSquares]);
        self.in_unit(nats)
    }

    /// Puts the corpus's two-point information beside the estimates; in nats.
    #[must_use]
    pub fn with_two_point(mut self, two_point: TwoPoint) -> Self {
        let unit = self.unit;
        self = self.in_unit(Unit::Nats);
        self.two_point = Some(two_point);
        self.in_unit(unit)
    }

    /// Puts the model's [`Estimates::divergence`] from the process beside the estimates; in nats.
    #[must_use]
    pub fn with_divergence(mut self, divergence: Estimate) -> Self {
        let unit = self.unit;
        self = self.in_unit(Unit::Nats);
        self.divergence = Some(divergence);
        self.in_unit(unit)
    }

    /// Says what was asked.
    #[must_use]
    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
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

    /// The ratios `L/ℓ` of this report, increasing.
    pub fn ratios(&self) -> Vec<usize> {
        let mut ratios: Vec<usize> = self.rows.iter().map(|row| row.estimates.ratio).collect();
        ratios.sort_unstable();
        ratios.dedup();
        ratios
    }

    /// The points `(L, estimate)` of a series at one ratio.
    pub fn points(&self, ratio: usize, series: Series) -> Vec<(f64, Estimate)> {
        let of_ratio = self.rows.iter().filter(|row| row.estimates.ratio == ratio);
        of_ratio.filter_map(|row| Some((row.estimates.length as f64, row.get(series)?))).collect()
    }

    /// The fit of a series at one ratio, if there is one.
    pub fn fit_of(&self, ratio: usize, series: Series, method: Method) -> Option<&Fit> {
        let same = |fit: &&SeriesFit| (fit.ratio, fit.series, fit.fit.method) == (ratio, series, method);
        self.fits.iter().find(same).map(|fit| &fit.fit)
    }

    /// Adds the fits of these series, and keeps all in order.
    fn fit(&mut self, series: &[Series], methods: &[Method]) {
        self.fits.retain(|fit| !series.contains(&fit.series));
        for ratio in self.ratios() {
            for &method in methods {
                let fit = |&series: &Series| {
                    let fit = method.fit(&self.points(ratio, series))?;
                    Some(SeriesFit { ratio, series, fit })
                };
                let fits: Vec<SeriesFit> = series.iter().filter_map(fit).collect();
                self.fits.extend(fits);
            }
        }
        self.fits.sort_by_key(|fit| (fit.ratio, fit.fit.method, fit.series));
    }

    /// The column heads, and the cells of each row, as shown in text and HTML.
    pub(crate) fn cells(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let series = self.series();
        let heads = ["L/ℓ", "L", "ℓ"].into_iter().chain(series.iter().map(|series| series.name())).collect();
        let show = |row: &Row, series: &Series| match row.get(*series) {
            None => "–".to_owned(),
            Some(exact) if matches!(series, Series::Truth | Series::VclubLimit) => {
                format!("{:.3}", exact.value)
            }
            Some(estimate) => estimate.to_string(),
        };
        let cells = |row: &Row| {
            let PointEstimate { ratio, length, split, .. } = row.estimates;
            let lengths = [ratio, length, split].map(|number| number.to_string());
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
        let unit = self.unit.name();
        text += &format!("\nmutual information in {unit}, mean ± standard error");
        if let Some(Row { estimates: PointEstimate { length, pairing_errors, .. }, .. }) = self.rows.last() {
            let PairingErrors { same, crossed } = pairing_errors;
            let _ = write!(
                text,
                "; of direct at L = {length}: ± {same:.2} with the same y in both terms, ± {crossed:.2} with the partner's"
            );
        }
        text += "\nfits of ln I on ln L, ± standard error, the exponent's 95 % interval in brackets:\n";
        for SeriesFit { ratio, series, fit } in &self.fits {
            let (series, method, rest) = (series.name(), fit.method.name(), left_out(fit));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{series:>12}   L/ℓ = {ratio}, {method:<13}   {fit}{rest}");
        }
        if let Some(told) = self.divergence_told() {
            let _ = writeln!(text, "KL divergence of the model from the process: {told}");
        }
        text += &self.two_point_text();
        text + &self.reading().map_or_else(String::new, |reading| format!("\n{reading}\n"))
    }

    pub(crate) fn divergence_told(&self) -> Option<String> {
        let (estimate, unit) = (self.divergence?, self.unit.name());
        Some(format!("{estimate} {unit} over {} tokens", self.nll.len()))
    }

    fn two_point_text(&self) -> String {
        let Some(two_point) = &self.two_point else { return String::new() };
        let mut text = format!("\ntwo-point mutual information in {}:\n", self.unit.name());
        for point in &two_point.points {
            let _ = writeln!(text, "{:>12}   {}", format!("d = {}", point.distance), point.estimate);
        }
        for fit in two_point.fit.iter().chain(&two_point.additive) {
            let _ =
                writeln!(text, "{:>12}   {}{}", fit.method.name(), fit.to_string().replace('L', "d"), left_out(fit));
        }
        text
    }

    /// What the exponent of the best estimate at the smallest ratio means.
    pub fn reading(&self) -> Option<String> {
        let ratio = *self.ratios().first()?;
        let fit = |series| self.fit_of(ratio, series, Method::LeastSquares);
        Some(fit(Series::Corrected).or_else(|| fit(Series::Direct))?.l2m_reading())
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
