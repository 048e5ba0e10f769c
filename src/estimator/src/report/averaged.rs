//! The averaged marginal and the consistency checks in a report: tables, text and charts.

use std::fmt::Write as _;

use surprisal_chart::escape_quotes as escape;

use crate::estimate::{ConsistencyCheck, ConsistencyTest, ContextCurve, PointEstimate, Series};
use crate::report::Report;
use crate::report::chart_points::{Chart, Color, Curve, Scale, with_bars};
use crate::report::csv::cells;
use crate::report::html::{escaped, table_section};
use crate::report::text::aligned;
use crate::value::Estimate;

impl Report {
    /// Returns a chart for each ratio: the estimates with an averaged marginal, and the ceiling of InfoNCE.
    pub(crate) fn averaged_charts(&self) -> Vec<(String, Chart)> {
        let mut charts = Vec::new();
        for ratio in self.ratios() {
            let Some(ceiling) = self.ceiling(ratio) else { continue };
            let shown = [Series::Truth, Series::Direct, Series::Averaged, Series::AveragedLimit, Series::InfoNce];
            let present = shown.into_iter().filter(|&series| !self.points(ratio, series).is_empty());
            let chart = Chart {
                title: format!("{}, marginal averaged over contexts, L/ℓ = {ratio}", self.title),
                x: "L, tokens in x and y together".to_owned(),
                y: format!("I(x; y) in {}", self.unit.name()),
                unit: self.unit.name(),
                scale: Scale::Logarithmic,
                curves: present.map(|series| self.curve(ratio, series)).chain([ceiling]).collect(),
            };
            charts.push((format!("averaged-{ratio}"), chart));
        }
        charts
    }

    /// Returns the largest value that InfoNCE can have, as a curve without marks; `None` without InfoNCE.
    fn ceiling(&self, ratio: usize) -> Option<Curve> {
        let of_ratio = self.context_curves.iter().filter(|curve| curve.ratio == ratio);
        let nats = |curve: &ContextCurve| ((curve.contexts() + 1) as f64).ln() / self.unit.nats();
        let points: Vec<(f64, Estimate)> =
            of_ratio.map(|curve| (curve.length as f64, Estimate::new(nats(curve), 0.0))).collect();
        (!points.is_empty()).then(|| Curve {
            line: points.iter().map(|(length, ceiling)| (*length, ceiling.value)).collect(),
            points: with_bars(&points),
            dashed: true,
            ..Curve::new(Color::INK, "ln(K + 1), the ceiling of InfoNCE")
        })
    }

    /// Returns the name and the text of the CSV files of the averaged marginal and of the consistency checks.
    pub(crate) fn averaged_tables(&self) -> Vec<(String, String)> {
        let mut tables = Vec::new();
        let unit = self.unit.name();
        if !self.context_curves.is_empty() {
            let mut csv = "ratio,length,split,contexts,value,error,effective,converged,unit\n".to_owned();
            for curve in &self.context_curves {
                let ContextCurve { ratio, length, split, effective, has_converged, .. } = curve;
                for point in &curve.points {
                    let (contexts, Estimate { value, error, .. }) = (point.contexts, point.estimate);
                    // Writing to a String cannot fail.
                    let _ = writeln!(
                        csv,
                        "{ratio},{length},{split},{contexts},{value},{error},{effective},{has_converged},{unit}"
                    );
                }
            }
            tables.push(("contexts.csv".to_owned(), csv));
        }
        if !self.consistency.is_empty() {
            let mut csv = "test,series,ratio,length,to_ratio,to_length,value,error,low,high,violated,unit\n".to_owned();
            for check in &self.consistency {
                let ConsistencyCheck { from: [ratio, length], to: [to_ratio, to_length], .. } = check;
                let (test, series, difference) = (check.test.name(), check.series.name(), cells(&check.difference));
                let violated = check.is_violated;
                let _ = writeln!(
                    csv,
                    "{test},{series},{ratio},{length},{to_ratio},{to_length},{difference},{violated},{unit}"
                );
            }
            tables.push(("consistency.csv".to_owned(), csv));
        }
        tables
    }

    /// Returns the tables as text for a terminal; an empty string if there is nothing to show.
    pub(crate) fn averaged_text(&self) -> String {
        let mut text = String::new();
        if let Some((heads, rows)) = self.context_cells() {
            let _ = writeln!(text, "\nmarginal averaged over k contexts from other texts, in {}:", self.unit.name());
            text += &aligned(heads, rows);
        }
        if !self.consistency.is_empty() {
            text += "\nself-consistency, differences that mutual information does not allow:\n";
            for line in self.consistency_lines() {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// Returns the page's section on the averaged marginal.
    pub(crate) fn averaged_section(&self) -> String {
        let Some((heads, rows)) = self.context_cells() else { return String::new() };
        let (heads, rows) = escaped(heads, rows);
        let note = "<p class=\"small\">ln q(y) is replaced by the logarithm of the mean of q(y given x') over k contexts x' \
             from other texts. k = 1 is vCLUB. The estimates fall with k, and each is an upper bound of the limit \
             k → ∞; at the largest k it is the leave-one-out bound. The limit is at most the mutual information, for \
             any model. It is extrapolated from the last three powers of two, as I + a·k<sup>−b</sup>; its error \
             includes the difference from b = 1, and at least half of the extrapolated step. It is not shown if it is \
             above ln K, if fewer than three contexts are effective, or if b is so small that the estimates hardly \
             converge. InfoNCE is a lower bound, and at most ln(K + 1).</p>\n";
        table_section("Marginal averaged over contexts", false, &heads, &rows, note)
    }

    /// Returns the page's section on the consistency checks.
    pub(crate) fn consistency_section(&self) -> String {
        if self.consistency.is_empty() {
            return String::new();
        }
        let lines: String = self
            .consistency_lines()
            .iter()
            .map(|line| format!("<li>{}</li>\n", escape(&line.trim_start().replacen("   ", ": ", 1))))
            .collect();
        format!(
            "<section>\n<h2>Self-consistency</h2>\n<ul class=\"notes\">\n{lines}</ul>\n\
             <p class=\"small\">Differences that mutual information does not allow. Data processing: more tokens have \
             no less information. Marginal: the direct estimate does not exceed the averaged one; if it does, \
             ln q(y) after BOS is too small. Additivity: two unrelated texts together have the sum of their \
             information; if not, they disturb each other in the model\u{2019}s context. Each test has a level of 5 % \
             for all its differences together. consistency.csv lists all differences.</p>\n</section>\n"
        )
    }

    /// Returns the headings and the rows of the table of context curves; `None` without curves.
    fn context_cells(&self) -> Option<(Vec<String>, Vec<Vec<String>>)> {
        let counts: Vec<usize> = self.context_curves.first()?.points.iter().map(|point| point.contexts).collect();
        let heads = ["L/ℓ", "L"].map(str::to_owned).into_iter();
        let heads = heads.chain(counts.iter().map(|count| format!("k = {count}")));
        let heads = heads.chain(["k → ∞", "effective k", "b", "InfoNCE"].map(str::to_owned)).collect();
        let mut rows = Vec::with_capacity(self.context_curves.len());
        for curve in &self.context_curves {
            let at_point = |row: &PointEstimate| (row.ratio, row.length) == (curve.ratio, curve.length);
            let row = self.rows.iter().map(|row| row.estimates).find(at_point);
            let mut cells = vec![curve.ratio.to_string(), curve.length.to_string()];
            cells.extend(curve.points.iter().map(|point| point.estimate.to_string()));
            let limit = row.and_then(|row| row.averaged_limit);
            cells.push(limit.map_or_else(|| "not converged".to_owned(), |limit| limit.to_string()));
            cells.push(format!("{:.1}", curve.effective));
            cells.push(curve.rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.2}")));
            let info_nce = row.and_then(|row| row.info_nce);
            cells.push(info_nce.map_or_else(|| "–".to_owned(), |info_nce| info_nce.to_string()));
            rows.push(cells);
        }
        Some((heads, rows))
    }

    /// Returns one line for each consistency test with at least one difference, and one for each violation.
    fn consistency_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for test in ConsistencyTest::ALL {
            let of_test = || self.consistency.iter().filter(move |check| check.test == test);
            let violations = || of_test().filter(|check| check.is_violated);
            let (name, count) = (test.name(), of_test().count());
            let property = if test.is_two_sided() { "different from 0" } else { "negative" };
            match violations().count() {
                _ if count == 0 => {}
                0 => lines.push(format!("{name:>16}   none of {count} significantly {property}")),
                some => lines.push(format!("{name:>16}   {some} of {count} significantly {property}:")),
            }
            lines.extend(violations().map(|check| format!("{:>16}   {}", "", self.describe(check))));
        }
        lines
    }

    fn describe(&self, check: &ConsistencyCheck) -> String {
        let ([ratio, length], [to_ratio, to_length], unit) = (check.from, check.to, self.unit.name());
        let (series, difference) = (check.series.name(), check.difference);
        match check.test {
            ConsistencyTest::Marginal => {
                format!("{series} minus direct at L/ℓ = {ratio}, L = {length}: {difference} {unit}")
            }
            ConsistencyTest::DataProcessing => {
                let to = if ratio == to_ratio { String::new() } else { format!(", L/ℓ = {to_ratio}") };
                format!("{series} at L/ℓ = {ratio} from L = {length} to {to_length}{to}: {difference} {unit}")
            }
            ConsistencyTest::Additivity => {
                format!("{series} of two texts minus the sum at L/ℓ = {ratio}, L = {length}: {difference} {unit}")
            }
        }
    }
}
