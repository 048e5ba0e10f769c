//! The convergence of the estimates with the number of texts, and the difference between the halves of the corpus, in a
//! report: text, HTML, CSV and charts.

use std::fmt::Write as _;

use surprisal_chart::escape_quotes as escape;

use crate::estimate::{Convergence, HalvesDifference, Series};
use crate::number::{significant, with_interval};
use crate::report::Report;
use crate::report::chart_points::{Chart, Curve, Mark, Scale, with_bars};
use crate::report::csv::cells;
use crate::report::html::{escaped, table_section};
use crate::report::laws::p_value;
use crate::report::text::aligned;
use crate::value::Estimate;

/// Factor in the number of texts that halves an error.
const TEXTS_TO_HALVE_ERROR: usize = 4;

/// The level of the tests of the halves of a corpus, for all ratios together.
const LEVEL: f64 = 0.05;

impl Report {
    /// Returns a chart for each ratio: the estimates at its longest `L` against the number of texts.
    pub(crate) fn convergence_charts(&self) -> Vec<(String, Chart)> {
        let mut charts = Vec::new();
        for ratio in self.ratios() {
            let shown = self.convergence_at_longest(ratio);
            let Some(length) = shown.first().map(|of_series| of_series.length) else { continue };
            let mut curves: Vec<Curve> = [Series::Truth, Series::VclubLimit]
                .into_iter()
                .filter_map(|exact| self.exact_level(ratio, length, exact, &shown))
                .collect();
            curves.extend(shown.iter().map(|of_series| self.convergence_curve(of_series)));
            let chart = Chart {
                title: format!("{}, convergence at L/ℓ = {ratio}, L = {length}", self.title),
                x: format!("number of {}", self.sampled()),
                y: format!("I(x; y) in {}", self.unit.name()),
                unit: self.unit.name(),
                scale: Scale::Linear,
                curves,
            };
            charts.push((format!("convergence-{ratio}"), chart));
        }
        charts
    }

    fn convergence_curve(&self, of_series: &Convergence) -> Curve {
        let points: Vec<(f64, Estimate)> =
            of_series.points.iter().map(|point| (point.texts as f64, point.estimate)).collect();
        let curve = self.curve(of_series.ratio, of_series.series);
        Curve {
            title: curve.label.clone(),
            equation: None,
            shift: 0.0,
            band: true,
            line: points.iter().map(|(texts, estimate)| (*texts, estimate.value)).collect(),
            points: with_bars(&points),
            ..curve
        }
    }

    /// Returns the level of an exact series, as a curve without marks; `None` if it is unknown.
    fn exact_level(&self, ratio: usize, length: usize, series: Series, shown: &[&Convergence]) -> Option<Curve> {
        let points = self.points(ratio, series);
        let (_, exact) = points.into_iter().find(|(at, _)| *at == length as f64)?;
        let ends = shown.first().map(|of_series| &of_series.points)?;
        let level = [ends.first()?, ends.last()?].map(|point| (point.texts as f64, exact));
        let line = level.iter().map(|(texts, exact)| (*texts, exact.value)).collect();
        Some(Curve { points: with_bars(&level), line, mark: Mark::None, ..self.curve(ratio, series) })
    }

    /// Returns convergence.csv and halves.csv.
    pub(crate) fn convergence_tables(&self) -> Vec<(String, String)> {
        let (mut tables, unit) = (Vec::new(), self.unit.name());
        if !self.convergence.is_empty() {
            let mut csv = "ratio,length,split,series,texts,value,error,low,high,unit\n".to_owned();
            for Convergence { ratio, length, split, series, points } in &self.convergence {
                for point in points {
                    let (name, texts, cells) = (series.name(), point.texts, cells(&point.estimate));
                    // Writing to a String cannot fail.
                    let _ = writeln!(csv, "{ratio},{length},{split},{name},{texts},{cells},{unit}");
                }
            }
            tables.push(("convergence.csv".to_owned(), csv));
        }
        if !self.halves.is_empty() {
            let mut csv = "ratio,length,first,second,value,error,low,high,freedom,p,unit\n".to_owned();
            for HalvesDifference { ratio, length, texts: [first, second], difference, freedom, p } in &self.halves {
                let cells = cells(difference);
                let _ = writeln!(csv, "{ratio},{length},{first},{second},{cells},{freedom},{p},{unit}");
            }
            tables.push(("halves.csv".to_owned(), csv));
        }
        tables
    }

    /// Returns the convergence at the smallest ratio as text for a terminal; an empty string if there is none.
    pub(crate) fn convergence_text(&self) -> String {
        let Some(&ratio) = self.ratios().first() else { return String::new() };
        let Some((heads, rows, length)) = self.convergence_cells(ratio) else { return String::new() };
        let mut text = format!(
            "\nconvergence with the number of {} at L/ℓ = {ratio}, L = {length}, with 95 % intervals:\n",
            self.sampled()
        );
        text += &aligned(heads, rows);
        for sentence in self.convergence_sentences(&[ratio]) {
            text += &sentence;
            text.push('\n');
        }
        text
    }

    /// Returns the page's section on convergence.
    pub(crate) fn convergence_section(&self) -> String {
        let ratios = self.ratios();
        let Some((heads, rows, length)) = ratios.first().and_then(|&ratio| self.convergence_cells(ratio)) else {
            return String::new();
        };
        let (heads, rows) = escaped(heads, rows);
        let sentences = self.convergence_sentences(&ratios).join(" ");
        let sampled = self.sampled();
        let note = format!(
            "<p>{}</p>\n<p class=\"small\">Estimates at L/ℓ = {}, L = {length} from the first {sampled}, in a random order, \
             with 95 % intervals of Student’s t distribution over {sampled}. Contexts for vCLUB and for the averaged \
             marginal may be from all {sampled}. The test of the halves has the {sampled} in the order of the corpus, \
             and is Welch’s. convergence.csv and halves.csv have all points.</p>\n",
            escape(&sentences),
            ratios[0],
        );
        table_section(&format!("Convergence with the number of {sampled}"), false, &heads, &rows, &note)
    }

    /// Returns the name of what errors are computed over.
    fn sampled(&self) -> &'static str {
        if self.texts == Some(1) { "windows" } else { "texts" }
    }

    /// Returns the convergence of each series at the longest `L` of a ratio.
    fn convergence_at_longest(&self, ratio: usize) -> Vec<&Convergence> {
        let of_ratio = || self.convergence.iter().filter(move |of_series| of_series.ratio == ratio);
        let longest = of_ratio().map(|of_series| of_series.length).max();
        of_ratio().filter(|of_series| Some(of_series.length) == longest).collect()
    }

    /// Returns the headings and the rows of the table at the longest `L` of a ratio, and this `L`.
    fn convergence_cells(&self, ratio: usize) -> Option<(Vec<String>, Vec<Vec<String>>, usize)> {
        let shown = self.convergence_at_longest(ratio);
        let first = shown.first()?;
        let mut heads = vec![self.sampled().to_owned()];
        heads.extend(shown.iter().map(|of_series| of_series.series.name().to_owned()));
        let mut rows = Vec::with_capacity(first.points.len());
        for (index, point) in first.points.iter().enumerate() {
            let mut row = vec![point.texts.to_string()];
            for of_series in &shown {
                let estimate = of_series.points.get(index).map(|point| point.estimate);
                row.push(estimate.map_or_else(
                    || "–".to_owned(),
                    |Estimate { value, interval, .. }| with_interval(value, interval.unwrap_or([value; 2])),
                ));
            }
            rows.push(row);
        }
        Some((heads, rows, first.length))
    }

    /// Returns the number of texts that half of the error takes, and the differences between the halves of the corpus.
    fn convergence_sentences(&self, ratios: &[usize]) -> Vec<String> {
        let (mut sentences, unit, sampled) = (Vec::new(), self.unit.name(), self.sampled());
        // Bonferroni's correction.
        let level = LEVEL / self.halves.len().max(1) as f64;
        for &ratio in ratios {
            let shown = self.convergence_at_longest(ratio);
            let direct = shown.iter().find(|of_series| of_series.series == Series::Direct);
            let Some((length, last)) = direct.and_then(|direct| Some((direct.length, direct.points.last()?))) else {
                continue;
            };
            if ratio == ratios[0] {
                let (error, texts) = (significant(last.estimate.error, 2), last.texts);
                let needed = TEXTS_TO_HALVE_ERROR * texts;
                sentences.push(format!(
                    "The direct estimate at L = {length} has an error of ± {error} {unit} from {texts} {sampled}. The error falls as \
                     1/√({sampled}): half of it needs about {needed} {sampled}."
                ));
            }
            if let Some(halves) = self.halves.iter().find(|halves| halves.ratio == ratio) {
                let (difference, p) = (halves.difference, p_value(halves.p));
                let at =
                    if ratios.len() > 1 { format!("L/ℓ = {ratio}, L = {length}") } else { format!("L = {length}") };
                let warning = if halves.p < level {
                    " The halves differ significantly, so the corpus may not be homogeneous."
                } else {
                    ""
                };
                sentences.push(format!(
                    "The direct estimate at {at} from the second half of the corpus minus that from the first half: \
                     {difference} {unit} ({p}).{warning}"
                ));
            }
        }
        sentences
    }
}
