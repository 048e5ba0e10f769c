//! Reports: the estimates, the true values if they are known, the fits, and the provenance, as text, HTML, CSV, JSON
//! and charts.
//!
//! Start with [`Report::new`]. `text` formats the table for a terminal, `html` builds the page, and `csv` builds the
//! CSV files. `two_point` shows two-point information and entropies in all three, and `laws` the laws of growth, which
//! `conclusion` interprets; `documents_csv` also reads a CSV file. `figures` builds the charts from the points in
//! `chart_points`. `compare` compares several reports: `alignment` determines whether they measure the same documents,
//! `differences` pairs their estimates, and `difference_tables` shows the differences; `unit_differences` and
//! `unit_difference_tables` do so for surprisal per byte and per character.
//! `averaged` has the tables and charts of the averaged marginal, and the consistency checks; `entropy_rate`,
//! `entropy_rate_chart` and `entropy_rate_csv` show the entropy rate. `divergence` shows the KL divergence from a known
//! process, `convergence` how the estimates depend on the number of texts, and `so_far` the estimates during a run.

mod alignment;
mod averaged;
mod chart_points;
mod compare;
mod conclusion;
mod convergence;
mod convert;
mod csv;
mod difference_tables;
mod differences;
mod divergence;
mod documents_csv;
mod entropy_rate;
mod entropy_rate_chart;
mod entropy_rate_csv;
mod figures;
mod files;
mod html;
mod laws;
mod model_name;
mod so_far;
mod text;
mod two_point;
mod unit_difference_tables;
mod unit_differences;

pub use compare::Comparison;
pub use differences::{Difference, ExponentDifference};
pub use divergence::DivergenceBin;
pub use unit_differences::{SurprisalDifference, WindowPart};

use serde::{Deserialize, Serialize};

use crate::corpus::{CorpusIdentity, CorpusStatistics, Omission};
use crate::estimate::{
    ConsistencyCheck, ContextCurve, Convergence, DocumentTerms, EntropyRate, Estimates, HalvesDifference,
    LocalExponent, Marginal, PointEstimate, PositionBin, Series, SeriesLaws,
};
use crate::fit::{Fit, FitMethod};
use crate::plan::{Cost, Pairing};
use crate::process::Process;
use crate::source::Model;
use crate::statistics::{NgramEntropy, TwoPoint};
use crate::unit::Unit;
use crate::value::Estimate;

/// One point of a report, with all values in the report's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The lengths and estimates at this point.
    #[serde(flatten)]
    pub estimates: PointEstimate,
    /// The process's mutual information; `None` if it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<f64>,
    /// The value that vCLUB converges to; `None` if it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vclub_limit: Option<f64>,
}

impl Row {
    /// Returns the value of a series in this row; `None` if the row has no such value. Exact values have error 0.
    pub fn get(&self, series: Series) -> Option<Estimate> {
        let exact = |value| Estimate::new(value, 0.0);
        match series {
            Series::Truth => self.truth.map(exact),
            Series::VclubLimit => self.vclub_limit.map(exact),
            Series::Direct
            | Series::Corrected
            | Series::Vclub
            | Series::Averaged
            | Series::AveragedLimit
            | Series::InfoNce => self.estimates.get(series),
        }
    }
}

/// A power law fitted to one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesFit {
    /// The ratio `L/ℓ`.
    pub ratio: usize,
    /// The fitted series.
    pub series: Series,
    /// The power law in `L`.
    #[serde(flatten)]
    pub fit: Fit,
}

/// The results of an experiment and their provenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// The model's name.
    pub model: String,
    /// The model's fingerprint, which identifies everything that its log-probabilities depend on.
    pub fingerprint: String,
    /// The version of this crate.
    pub version: String,
    /// The experiment's [`digest`](crate::spec::Experiment::digest); `None` if the plan was run without an experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The experiment's seed; `None` if the plan was run without an experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The unit of all information values in this report.
    #[serde(default)]
    pub unit: Unit,
    /// The number of documents.
    pub documents: usize,
    /// The number of texts that the documents come from; `None` in reports of versions that did not record it. Errors
    /// and intervals are computed over texts, or over documents if there is only one text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<usize>,
    /// The effective number of texts, `N² / Σ n²` for `N` documents, of which a text has `n` (Kish, 1965); the number of
    /// documents if there is only one text. `None` in reports of versions in which all texts had equally many documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_texts: Option<f64>,
    /// The number of contexts from other texts that each `y` has at least; if there is only one text, from other
    /// documents. `None` in reports of versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrelated_contexts: Option<usize>,
    /// The identity of the documents; `None` in reports of earlier versions, and if the plan was run without an
    /// experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<CorpusIdentity>,
    /// The sums behind the estimates, one entry per document and point. They are not in the JSON: a report's folder has
    /// them as documents.csv. `None` if that file does not exist.
    #[serde(skip)]
    pub terms: Option<DocumentTerms>,
    /// The pairing of marginal with conditional terms in the direct estimate.
    pub pairing: Pairing,
    /// The number of contexts from other documents before each `y`, for vCLUB; `None` in reports of earlier versions,
    /// and if the plan was run without an experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negatives: Option<usize>,
    /// The marginal term of the estimate from which the conclusion is drawn.
    #[serde(default)]
    pub marginal: Marginal,
    /// The n-gram entropy that the correction uses; `None` without a correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ngram_entropy: Option<NgramEntropy>,
    /// The weight of the n-gram entropy in the correction; `None` without a correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ngram_weight: Option<f64>,
    /// One row for each point, in increasing order of ratio, then length.
    pub rows: Vec<Row>,
    /// The dependence of the averaged marginal on the number of contexts, one for each row; empty for fewer than two
    /// contexts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context_curves: Vec<ContextCurve>,
    /// The checks of properties that mutual information has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consistency: Vec<ConsistencyCheck>,
    /// The convergence of each series at each point with the number of texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub convergence: Vec<Convergence>,
    /// The differences between the two halves of the texts at the longest `L` of each ratio.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub halves: Vec<HalvesDifference>,
    /// One fit for each ratio, method and series with enough positive points, sorted in that order.
    pub fits: Vec<SeriesFit>,
    /// The laws of growth fitted to each series with the covariance between points, by ratio, then series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub laws: Vec<SeriesLaws>,
    /// The exponents between neighboring points of each series, by ratio, then series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local_exponents: Vec<LocalExponent>,
    /// The mean surprisal at each position: `nll[t]` is the mean of `-ln q(x_t | x_0 .. x_(t-1))` over documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nll: Vec<Estimate>,
    /// The means of `nll` over ranges of positions that grow with the position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nll_bins: Vec<PositionBin>,
    /// The entropy rate, and quantities that follow from surprisal by position; `None` in reports of earlier versions and
    /// for Gaussian documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy_rate: Option<EntropyRate>,
    /// The Kullback-Leibler divergence of the model from the process that generated the documents, over a whole window;
    /// `None` for texts and Gaussian documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Estimate>,
    /// The divergence over ranges of positions, those of `nll_bins`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub divergence_bins: Vec<DivergenceBin>,
    /// The corpus's two-point mutual information; `None` if it was not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_point: Option<TwoPoint>,
    /// Statistics of a corpus of texts; `None` for sampled documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus: Option<CorpusStatistics>,
    /// Files and texts that the corpus omits, except texts that are too short for the windows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Omission>,
    /// The cost of the plan; `None` if it was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Further notes on the provenance, such as the corpus and the command.
    pub notes: Vec<String>,
}

impl Report {
    /// Builds a report of the estimates that `model` returned, in nats, and fits power laws to them.
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
            texts: Some(estimates.texts),
            effective_texts: Some(estimates.effective_texts),
            unrelated_contexts: Some(estimates.unrelated_contexts),
            identity: None,
            terms: Some(estimates.terms.clone()).filter(|terms| !terms.points.is_empty()),
            pairing: estimates.pairing,
            negatives: None,
            marginal: Marginal::default(),
            ngram_entropy: estimates.correction.map(|correction| correction.entropy),
            ngram_weight: estimates.correction.map(|correction| correction.weight),
            rows: estimates.points.iter().map(row).collect(),
            context_curves: estimates.context_curves.clone(),
            consistency: estimates.consistency.clone(),
            convergence: estimates.convergence.clone(),
            halves: estimates.halves.clone(),
            fits: Vec::new(),
            laws: estimates.laws.clone(),
            local_exponents: estimates.local_exponents.clone(),
            nll: estimates.nll.clone(),
            nll_bins: estimates.nll_bins.clone(),
            entropy_rate: estimates.entropy_rate.clone(),
            divergence: None,
            divergence_bins: Vec::new(),
            two_point: None,
            corpus: None,
            left_out: Vec::new(),
            cost: None,
            notes: Vec::new(),
        };
        let fitted: Vec<Series> = Series::ESTIMATORS.into_iter().filter(|series| series.has_fit()).collect();
        report.add_fits(&fitted, &FitMethod::ALL);
        for SeriesFit { ratio, series, fit } in &mut report.fits {
            let key = (*ratio, *series, fit.method);
            let found =
                estimates.exponents.iter().find(|exponent| (exponent.ratio, exponent.series, exponent.method) == key);
            fit.exponent_interval = found.map(|exponent| exponent.interval);
        }
        report
    }

    /// Adds the true mutual information of the process, and the value that vCLUB converges to.
    ///
    /// # Panics
    /// If the longest sequence of the estimates is longer than the process supports.
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

    /// Adds the corpus's two-point mutual information, which must be in nats.
    #[must_use]
    pub fn with_two_point(mut self, two_point: TwoPoint) -> Self {
        let unit = self.unit;
        self = self.in_unit(Unit::Nats);
        self.two_point = Some(two_point);
        self.in_unit(unit)
    }

    /// Adds the cost of the plan.
    #[must_use]
    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    /// Adds a note on the provenance.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Returns the series that have a value in at least one row.
    pub fn series(&self) -> Vec<Series> {
        let present = |series: &Series| self.rows.iter().any(|row| row.get(*series).is_some());
        Series::ALL.into_iter().filter(present).collect()
    }

    /// Returns the ratios `L/ℓ` of this report, in increasing order.
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

    /// Returns the fit of a series at one ratio; `None` if there is none.
    pub fn fit_of(&self, ratio: usize, series: Series, method: FitMethod) -> Option<&Fit> {
        let same = |fit: &&SeriesFit| (fit.ratio, fit.series, fit.fit.method) == (ratio, series, method);
        self.fits.iter().find(same).map(|fit| &fit.fit)
    }

    /// Returns the laws fitted to a series at one ratio; `None` if there are none.
    pub fn laws_of(&self, ratio: usize, series: Series) -> Option<&SeriesLaws> {
        self.laws.iter().find(|laws| (laws.ratio, laws.series) == (ratio, series))
    }

    /// Fits these series at each ratio, replaces their earlier fits, and sorts all fits.
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
