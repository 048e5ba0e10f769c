//! The divergence of a model from a known process, in a report: text, HTML, CSV and chart.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use surprisal_chart::escape_quotes as escape;

use crate::estimate::{Divergence, PositionBin};
use crate::number::{exact, significant};
use crate::report::Report;
use crate::report::chart_points::{Chart, Color, Curve, Mark, Scale, bin_points, with_bars};
use crate::report::csv::cells;
use crate::report::html::table;
use crate::unit::Unit;
use crate::value::Estimate;

/// The mean divergence of the model from the process over a range of positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DivergenceBin {
    /// The positions, and the mean divergence for each token.
    #[serde(flatten)]
    pub bin: PositionBin,
    /// The exact divergence for each token; `None` if it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<f64>,
}

impl Report {
    /// Adds the model's divergence from the process ([`Estimates::divergence`](crate::estimate::Estimates::divergence)),
    /// which must be in nats.
    #[must_use]
    pub fn with_divergence(mut self, divergence: &Divergence) -> Self {
        let unit = self.unit;
        self = self.in_unit(Unit::Nats);
        self.divergence = Some(divergence.total);
        self.divergence_bins = divergence.bins.iter().map(|&bin| DivergenceBin { bin, truth: None }).collect();
        self.in_unit(unit)
    }

    /// Adds the exact divergence to the bins of [`with_divergence`](Self::with_divergence). `exact` returns the divergence
    /// over the first tokens, in nats, given their number.
    #[must_use]
    pub fn with_exact_divergence(mut self, exact: impl Fn(usize) -> f64) -> Self {
        let factor = Unit::Nats.nats() / self.unit.nats();
        for DivergenceBin { bin: PositionBin { first, last, .. }, truth } in &mut self.divergence_bins {
            let tokens = (*last + 1 - *first) as f64;
            *truth = Some((exact(*last) - exact(*first - 1)) / tokens * factor);
        }
        self
    }

    /// Returns the chart of the divergence by position; `None` if it is unknown.
    pub(crate) fn divergence_chart(&self) -> Option<Chart> {
        let bins = &self.divergence_bins;
        let centers = [bins.first()?, bins.last()?].map(|of_bin| of_bin.bin.center());
        let zero = centers.map(|at| (at, Estimate::new(0.0, 0.0)));
        let mut curves = vec![Curve {
            points: with_bars(&zero),
            line: zero.iter().map(|(at, zero)| (*at, zero.value)).collect(),
            dashed: true,
            ..Curve::new(Color::SOFT, "0: the model is the process")
        }];
        let truth: Vec<(f64, Estimate)> =
            bins.iter().filter_map(|of_bin| Some((of_bin.bin.center(), Estimate::new(of_bin.truth?, 0.0)))).collect();
        if !truth.is_empty() {
            let line = truth.iter().map(|(at, exact)| (*at, exact.value)).collect();
            curves.push(Curve { points: with_bars(&truth), line, line_width: 2.0, ..Curve::new(Color::INK, "truth") });
        }
        let found: Vec<PositionBin> = bins.iter().map(|of_bin| of_bin.bin).collect();
        let (points, line) = bin_points(&found);
        let label = "KL divergence from the process";
        curves.push(Curve { points, line, mark: Mark::Circle, band: true, ..Curve::new(Color::SERIES[0], label) });
        Some(Chart {
            title: format!("{}, KL divergence by position", self.title),
            x: "position in the document, from 1".to_owned(),
            y: format!("mean of ln p - ln q in {} per token", self.unit.name()),
            unit: self.unit.name(),
            scale: Scale::Linear,
            curves,
        })
    }

    /// Returns divergence.csv; `None` if the divergence by position is unknown.
    pub(crate) fn divergence_csv(&self) -> Option<String> {
        let mut csv = "first,last,value,error,low,high,truth,unit\n".to_owned();
        for DivergenceBin { bin: PositionBin { first, last, estimate }, truth } in &self.divergence_bins {
            let (cells, unit) = (cells(estimate), self.unit.name());
            let truth = truth.map_or_else(String::new, |truth| truth.to_string());
            // Writing to a String cannot fail.
            let _ = writeln!(csv, "{first},{last},{cells},{truth},{unit}");
        }
        (!self.divergence_bins.is_empty()).then_some(csv)
    }

    /// Returns the divergence over the window and at its ends as text for a terminal; an empty string if it is unknown.
    pub(crate) fn divergence_lines(&self) -> String {
        let Some(total) = self.divergence_text() else { return String::new() };
        let mut text = format!("KL divergence of the model from the process: {total}\n");
        if let [first, .., last] = &self.divergence_bins[..] {
            let show = |DivergenceBin { bin, truth }: &DivergenceBin| {
                let truth = truth.map_or_else(String::new, |truth| format!(" (truth {})", exact(truth)));
                format!("{} at {}{truth}", bin.estimate, bin.positions())
            };
            let (first, last, unit) = (show(first), show(last), self.unit.name());
            let _ = writeln!(text, "  by position, in {unit} per token: {first}, ..., {last}");
        }
        text
    }

    /// Returns the model's divergence from the process over a window, with its unit; `None` if it is unknown.
    pub(crate) fn divergence_text(&self) -> Option<String> {
        let (estimate, unit) = (self.divergence?, self.unit.name());
        Some(format!("{estimate} {unit} over {} tokens", self.nll.len()))
    }

    /// Returns the page's section on the divergence by position.
    pub(crate) fn divergence_section(&self) -> String {
        let Some(total) = self.divergence_text() else { return String::new() };
        let has_truth = self.divergence_bins.iter().any(|of_bin| of_bin.truth.is_some());
        let mut heads = ["positions", "KL per token", "95 % interval"].map(str::to_owned).to_vec();
        heads.extend(has_truth.then(|| "truth".to_owned()));
        let mut rows = Vec::with_capacity(self.divergence_bins.len());
        for DivergenceBin { bin, truth } in &self.divergence_bins {
            let interval = bin
                .estimate
                .interval
                .map_or_else(String::new, |[low, high]| format!("{} to {}", significant(low, 3), significant(high, 3)));
            let mut row = vec![bin.positions(), escape(&bin.estimate.to_string()), interval];
            row.extend(truth.map(exact));
            rows.push(row);
        }
        let details = match rows.is_empty() {
            true => String::new(),
            false => format!("<details>\n<summary>By position</summary>\n{}</details>\n", table(false, &heads, &rows)),
        };
        format!(
            "<section>\n<h2>KL divergence from the process</h2>\n<p>{}</p>\n<p class=\"small\">The mean of ln p − ln q over \
             documents, which the process p generated. A divergence is at least 0; its estimate, and the terms that it \
             averages, may be negative.</p>\n{details}</section>\n",
            escape(&total)
        )
    }
}
