//! Comparison of several reports: charts with one curve per report, and tables of their estimates and exponents.

use std::fmt::Write as _;
use std::path::Path;

use surprisal_chart::escape_quotes as escape;

use crate::error::Error;
use crate::estimate::Series;
use crate::files::write_atomically;
use crate::fit::FitMethod;
use crate::number::{significant, with_error};
use crate::report::alignment::{Alignment, alignment_sentence, corpus_of, other_settings};
use crate::report::chart_points::{
    Chart, Color, Curve, Mark, Scale, along, equation, pictures, surprisal_chart, surprisal_curve, with_bars,
};
use crate::report::csv::cells;
use crate::report::differences::Difference;
use crate::report::html::{figure, page, table_section};
use crate::report::model_name::short_model_name;
use crate::report::{Report, SeriesFit};
use crate::value::Estimate;

/// The maximum number of reports; more curves would be hard to tell apart in a chart.
const MAX_REPORTS: usize = 6;

/// The horizontal distance between the marks of two reports at the same L, in pixels.
const MARK_DISTANCE: f64 = 9.0;

/// The mark of each report's curve.
const MARKS: [Mark; MAX_REPORTS] =
    [Mark::Circle, Mark::Square, Mark::Triangle, Mark::Circle, Mark::Square, Mark::Triangle];

/// Several reports, each with a unique name.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    reports: Vec<(String, Report)>,
}

impl Comparison {
    /// Creates a comparison of named reports on the same texts, and converts all of them to the unit of the first.
    ///
    /// # Errors
    /// The errors of [`of_any_corpus`](Self::of_any_corpus); [`Error::DifferentCorpora`] if two reports state that they
    /// are on different texts.
    pub fn new(reports: Vec<(String, Report)>) -> Result<Self, Error> {
        let comparison = Self::of_any_corpus(reports)?;
        let (first, others) = comparison.first_and_others();
        match others.iter().find(|(_, other)| Alignment::of(&first.1, other) == Alignment::OtherTexts) {
            None => Ok(comparison),
            Some(other) => {
                let [(first, first_corpus), (other, other_corpus)] =
                    [first, other].map(|(name, report)| (name.clone(), corpus_of(report)));
                Err(Error::DifferentCorpora { first, first_corpus, other, other_corpus })
            }
        }
    }

    /// Creates a comparison of named reports like [`new`](Self::new), but also of reports on different texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than 2 or more than 6 reports, or if two reports have the same name.
    pub fn of_any_corpus(reports: Vec<(String, Report)>) -> Result<Self, Error> {
        if !(2..=MAX_REPORTS).contains(&reports.len()) {
            return Err(Error::invalid("number of reports", reports.len(), format!("2 to {MAX_REPORTS}")));
        }
        let mut names: Vec<&String> = reports.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid("report name", twice[0], "different for each report; set it with NAME=FOLDER"));
        }
        let unit = reports[0].1.unit;
        let reports = reports.into_iter().map(|(name, report)| (name, report.in_unit(unit))).collect();
        Ok(Self { reports })
    }

    /// Returns the first report, and the others, which are compared with it.
    pub(crate) fn first_and_others(&self) -> (&(String, Report), &[(String, Report)]) {
        (&self.reports[0], &self.reports[1..])
    }

    /// Returns all reports with their names.
    pub(crate) fn reports(&self) -> &[(String, Report)] {
        &self.reports
    }

    pub(crate) fn unit(&self) -> &'static str {
        self.reports[0].1.unit.name()
    }

    fn ratios(&self) -> Vec<usize> {
        let mut ratios: Vec<usize> = self.reports.iter().flat_map(|(_, report)| report.ratios()).collect();
        ratios.sort_unstable();
        ratios.dedup();
        ratios
    }

    /// Returns the series that at least one report has.
    fn series(&self) -> impl Iterator<Item = Series> {
        Series::ESTIMATORS
            .into_iter()
            .filter(|series| self.reports.iter().any(|(_, report)| report.series().contains(series)))
    }

    /// Returns the comparison as one self-contained HTML page.
    pub fn html(&self) -> String {
        let figures: String = self.charts().iter().map(|(_, chart)| figure(chart)).collect();
        let lead = format!("Mutual information estimated with {} models, in {}.", self.reports.len(), self.unit());
        page(
            "Models compared",
            &lead,
            &[
                self.alignment_section(),
                figures,
                self.surprisal_section(),
                self.differences_section(),
                self.exponents_section(),
                self.estimates_section(),
                self.models_section(),
            ]
            .concat(),
        )
    }

    /// Writes the page (compare.html), the charts (SVG and PDF files), the estimates (compare.csv) and surprisal per byte
    /// and per character (compare-surprisal.csv) to a folder. Each file is written atomically.
    ///
    /// # Errors
    /// [`Error::File`] if a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
        let mut files = pictures(self.charts());
        files.push(("compare.html".to_owned(), self.html().into_bytes()));
        files.push(("compare.csv".to_owned(), self.csv().into_bytes()));
        let surprisal = self.surprisal_csv().map(|csv| ("compare-surprisal.csv".to_owned(), csv.into_bytes()));
        files.extend(surprisal);
        for (name, bytes) in files {
            write_atomically(&folder.join(name), &bytes)?;
        }
        Ok(())
    }

    /// Returns the power-law fits as text: a heading, and one line per fit.
    pub fn table(&self) -> String {
        let width = self.reports.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let unit = self.unit();
        let mut text = format!(
            "power laws in L by least squares, in {unit}, ± standard error, the exponent's 95 % interval in brackets:\n"
        );
        for (name, SeriesFit { ratio, series, fit }) in self.fits() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<width$}   L/ℓ = {ratio}   {:>9}   {fit}", series.name());
        }
        text + &self.differences_text(width) + &self.surprisal_text()
    }

    /// Returns sentences that say, for each report after the first, whether it measures the same documents, and which
    /// settings and points differ.
    pub(crate) fn statements(&self) -> Vec<String> {
        let (first, others) = self.first_and_others();
        let mut sentences = Vec::new();
        for other in others {
            let settings = other_settings(&first.1, &other.1).into_iter();
            let points = self.missing_points(&other.1).into_iter().chain(None::<String>);
            sentences.push(alignment_sentence(first, other));
            sentences.extend(settings.chain(points).map(|clause| format!("{}: {clause}.", other.0)));
        }
        let missing = self.missing_points(&first.1);
        sentences.extend(missing.map(|clause| format!("{}: {clause}.", first.0)));
        sentences
    }

    /// Returns a clause with the points that another report has, but not this one; `None` if there are none.
    fn missing_points(&self, report: &Report) -> Option<String> {
        let has = |ratio, length| {
            report.rows.iter().any(|row| (row.estimates.ratio, row.estimates.length) == (ratio, length))
        };
        let mut points: Vec<(usize, usize)> = self.estimated_points().iter().map(|&(_, r, l)| (r, l)).collect();
        points.sort_unstable();
        points.dedup();
        points.retain(|&(ratio, length)| !has(ratio, length));
        let names: Vec<String> = points.iter().map(|(ratio, length)| format!("L = {length} (L/ℓ = {ratio})")).collect();
        (!names.is_empty()).then(|| format!("no estimates at {}", names.join(", ")))
    }

    fn charts(&self) -> Vec<(String, Chart)> {
        let of_ratio = |ratio| self.series().map(move |series| (ratio, series));
        let bipartite = self.ratios().into_iter().flat_map(of_ratio).map(|(ratio, series)| {
            let name = format!("compare-{}-{ratio}", file_name(series));
            (name, self.bipartite(ratio, series))
        });
        let nll = self.reports.iter().all(|(_, report)| !report.nll.is_empty());
        bipartite.chain(nll.then(|| ("compare-nll".to_owned(), self.nll()))).collect()
    }

    fn bipartite(&self, ratio: usize, series: Series) -> Chart {
        let curve = |(index, ((name, report), color, mark)): (usize, (&(String, Report), Color, Mark))| {
            let points = report.points(ratio, series);
            // Side by side, so that equal estimates stay visible.
            let shift = MARK_DISTANCE * (index as f64 - 0.5 * (self.reports.len() - 1) as f64);
            let mut curve = Curve { points: with_bars(&points), mark, shift, ..Curve::new(color, name) };
            if let Some(fit) = report.fit_of(ratio, series, FitMethod::LeastSquares) {
                curve.title = format!("{name}: fit {fit}");
                (curve.equation, curve.line) = (Some(equation(fit, "L")), along(&points, fit));
            }
            curve
        };
        let truth = self.reports.iter().map(|(_, report)| report.points(ratio, Series::Truth));
        let truth = truth.filter(|points| !points.is_empty()).take(1).map(|points| Curve {
            line: points.iter().map(|(at, estimate)| (*at, estimate.value)).collect(),
            points: with_bars(&points),
            line_width: 2.0,
            ..Curve::new(Color::INK, "truth")
        });
        Chart {
            title: format!("{}, L/ℓ = {ratio}", series.name()),
            x: "L, tokens in x and y together".to_owned(),
            y: format!("I(x; y) in {}", self.unit()),
            unit: self.unit(),
            scale: Scale::Logarithmic,
            curves: truth.chain(self.styled().enumerate().map(curve)).collect(),
        }
    }

    fn nll(&self) -> Chart {
        let curves = self.styled().map(|((name, report), color, mark)| surprisal_curve(report, color, mark, name));
        surprisal_chart("Surprisal by position".to_owned(), self.unit(), curves.collect())
    }

    /// Returns each report with the color and the mark of its curve.
    fn styled(&self) -> impl Iterator<Item = (&(String, Report), Color, Mark)> {
        let styles = Color::SERIES.into_iter().zip(MARKS);
        self.reports.iter().zip(styles).map(|(report, (color, mark))| (report, color, mark))
    }

    /// Returns the least-squares fits, sorted by series and ratio, each with the name of its report.
    fn fits(&self) -> Vec<(&str, &SeriesFit)> {
        let all =
            self.reports.iter().flat_map(|(name, report)| report.fits.iter().map(move |fit| (name.as_str(), fit)));
        let mut fits: Vec<_> = all.filter(|(_, fit)| fit.fit.method == FitMethod::LeastSquares).collect();
        fits.sort_by_key(|(_, fit)| (fit.series, fit.ratio));
        fits
    }

    fn alignment_section(&self) -> String {
        let items: String = self.statements().iter().map(|text| format!("<li>{}</li>\n", escape(text))).collect();
        format!("<section>\n<h2>Documents and settings</h2>\n<ul class=\"notes\">\n{items}</ul>\n</section>\n")
    }

    fn exponents_section(&self) -> String {
        let row = |(name, SeriesFit { ratio, series, fit }): &(&str, &SeriesFit)| {
            vec![
                escape(name),
                series.name().to_owned(),
                ratio.to_string(),
                significant(fit.amplitude, 3),
                fit.exponent_error.map_or_else(|| format!("{:.3}", fit.exponent), |e| with_error(fit.exponent, e)),
                fit.exponent_interval.map_or(String::new(), |[low, high]| format!("{low:.3} to {high:.3}")),
            ]
        };
        let rows: Vec<Vec<String>> = self.fits().iter().map(row).collect();
        let heads = ["model", "series", "L/ℓ", "A", "β", "95 % interval of β"].map(str::to_owned);
        table_section("Power laws I = A·L<sup>β</sup>, fitted by least squares", true, &heads, &rows, "")
    }

    fn estimates_section(&self) -> String {
        let mut rows = Vec::new();
        for (series, ratio, length) in self.estimated_points() {
            let mut cells = vec![series.name().to_owned(), ratio.to_string(), length.to_string()];
            for (_, report) in &self.reports {
                let points = report.points(ratio, series);
                let found = points.iter().find(|(at, _)| *at as usize == length);
                cells.push(found.map_or_else(|| "–".to_owned(), |(_, estimate)| estimate.to_string()));
            }
            rows.push(cells);
        }
        let names = self.reports.iter().map(|(name, _)| escape(name));
        let heads: Vec<String> = ["series", "L/ℓ", "L"].map(str::to_owned).into_iter().chain(names).collect();
        let heading = format!("Estimates in {}, mean ± standard error", self.unit());
        table_section(&heading, true, &heads, &rows, "")
    }

    /// Returns every combination of series, ratio and length for which at least one report has an estimate.
    fn estimated_points(&self) -> Vec<(Series, usize, usize)> {
        let mut found = Vec::new();
        for series in self.series() {
            for ratio in self.ratios() {
                for (_, report) in &self.reports {
                    let points = report.points(ratio, series);
                    found.extend(points.iter().map(|(length, _)| (series, ratio, *length as usize)));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn models_section(&self) -> String {
        let row = |(name, report): &(String, Report)| {
            let model = short_model_name(&report.model);
            let long = |text: &String| format!("<span class=\"long\">{}</span>", escape(text));
            let mut cells = [name, &report.title, &model, &report.fingerprint].map(long).to_vec();
            cells.push(report.documents.to_string());
            cells
        };
        let rows: Vec<Vec<String>> = self.reports.iter().map(row).collect();
        let heads = ["name", "title", "model", "fingerprint", "documents"].map(str::to_owned);
        table_section("Reports compared", true, &heads, &rows, "")
    }

    /// Returns the estimates as CSV. The differences are those to the first report; their cells are empty if there is no
    /// difference, and their interval is empty if the difference is not paired.
    fn csv(&self) -> String {
        let mut csv = "name,model,ratio,length,series,value,error,unit,difference,difference_error,difference_low,\
                       difference_high\n"
            .to_owned();
        let differences: Vec<_> = self.reports.iter().map(|(name, _)| self.differences(name)).collect();
        for (series, ratio, length) in self.estimated_points() {
            for ((name, report), differences) in self.reports.iter().zip(&differences) {
                for (_, estimate) in report.points(ratio, series).iter().filter(|(at, _)| *at as usize == length) {
                    let [name, model] = [name, &report.model].map(|text| text.replace(['"', ',', '\n'], " "));
                    let is_here = |d: &&Difference| (d.series, d.ratio, d.length) == (series, ratio, length);
                    let difference = differences.iter().find(is_here).map_or(",,,".to_owned(), |d| cells(&d.estimate));
                    let (series, Estimate { value, error, .. }, unit) = (series.name(), estimate, self.unit());
                    let _ =
                        writeln!(csv, "{name},{model},{ratio},{length},{series},{value},{error},{unit},{difference}");
                }
            }
        }
        csv
    }
}

/// Returns a series' name in a file name: lower-case letters and hyphens.
fn file_name(series: Series) -> String {
    match series {
        Series::AveragedLimit => "averaged-limit".to_owned(),
        other => other.name().to_lowercase(),
    }
}
