//! The report: estimates beside the truth where it is known, their fits, and how they were made; as JSON and as text.
//!
//! Start with [`Report::new`]. `text` writes the table for a terminal, `html` the page, `csv` the tables. `figures`
//! builds the charts from the points in `chart_points`; `compare` puts several reports side by side.

mod chart_points;
mod compare;
mod convert;
mod csv;
mod figures;
mod files;
mod html;
mod text;

pub use compare::Comparison;

use serde::{Deserialize, Serialize};

use crate::corpus::CorpusStatistics;
use crate::estimate::{Estimates, PointEstimate, Series};
use crate::fit::{Fit, FitMethod};
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
    /// Reports `estimates` by `model`, in nats.
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
        report.add_fits(&[Series::Direct, Series::Corrected, Series::Vclub], &FitMethod::ALL);
        for SeriesFit { ratio, series, fit } in &mut report.fits {
            let key = (*ratio, *series, fit.method);
            let found =
                estimates.exponents.iter().find(|exponent| (exponent.ratio, exponent.series, exponent.method) == key);
            fit.exponent_interval = found.map(|exponent| exponent.interval);
        }
        report
    }

    /// Adds the process's truth, and the limit of vCLUB on its oracle.
    ///
    /// # Panics
    /// If the process does not reach as far as the estimates.
    #[must_use]
    pub fn with_truth(mut self, process: &impl Process) -> Self {
        let unit = self.unit;
        self = self.in_unit(Unit::Nats);
        for row in &mut self.rows {
            let (m, n) = (row.estimates.split, row.estimates.length - row.estimates.split);
            row.truth = Some(process.mutual_information(m, n));
            row.vclub_limit = Some(process.vclub_limit(m, n));
        }
        self.add_fits(&[Series::Truth, Series::VclubLimit], &[FitMethod::LeastSquares]);
        self.in_unit(unit)
    }

    /// Adds the corpus's two-point information, in nats.
    #[must_use]
    pub fn with_two_point(mut self, two_point: TwoPoint) -> Self {
        let unit = self.unit;
        self = self.in_unit(Unit::Nats);
        self.two_point = Some(two_point);
        self.in_unit(unit)
    }

    /// Adds the model's [`Estimates::divergence`] from the process, in nats.
    #[must_use]
    pub fn with_divergence(mut self, divergence: Estimate) -> Self {
        let unit = self.unit;
        self = self.in_unit(Unit::Nats);
        self.divergence = Some(divergence);
        self.in_unit(unit)
    }

    /// Adds what the plan cost.
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

    /// Returns the series that this report has.
    pub fn series(&self) -> Vec<Series> {
        let present = |series: &Series| self.rows.iter().any(|row| row.get(*series).is_some());
        Series::ALL.into_iter().filter(present).collect()
    }

    /// Returns the ratios `L/ℓ` of this report, increasing.
    pub fn ratios(&self) -> Vec<usize> {
        let mut ratios: Vec<usize> = self.rows.iter().map(|row| row.estimates.ratio).collect();
        ratios.sort_unstable();
        ratios.dedup();
        ratios
    }

    /// Returns the points `(L, estimate)` of a series at one ratio.
    pub fn points(&self, ratio: usize, series: Series) -> Vec<(f64, Estimate)> {
        let of_ratio = self.rows.iter().filter(|row| row.estimates.ratio == ratio);
        of_ratio.filter_map(|row| Some((row.estimates.length as f64, row.get(series)?))).collect()
    }

    /// Returns the fit of a series at one ratio, if there is one.
    pub fn fit_of(&self, ratio: usize, series: Series, method: FitMethod) -> Option<&Fit> {
        let same = |fit: &&SeriesFit| (fit.ratio, fit.series, fit.fit.method) == (ratio, series, method);
        self.fits.iter().find(same).map(|fit| &fit.fit)
    }

    /// Fits these series at each ratio, and sorts all fits.
    fn add_fits(&mut self, series: &[Series], methods: &[FitMethod]) {
        self.fits.retain(|fit| !series.contains(&fit.series));
        for ratio in self.ratios() {
            for &series in series {
                let points = self.points(ratio, series);
                for method in methods {
                    let fit = method.fit(&points);
                    self.fits.extend(fit.map(|fit| SeriesFit { ratio, series, fit }));
                }
            }
        }
        self.fits.sort_by_key(|fit| (fit.ratio, fit.fit.method, fit.series));
    }
}
