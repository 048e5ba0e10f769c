//! The report as one HTML page, without scripts or external files.

use surprisal_chart::escape_quotes as escape;

use crate::corpus::Omission;
use crate::estimate::PairingErrors;
use crate::plan::{Cost, Pairing};
use crate::report::chart_points::{Chart, chart_style};
use crate::report::text::left_out;
use crate::report::{Report, SeriesFit};
use crate::statistics::NgramEntropy;

impl Report {
    /// Returns the report as one self-contained page: the charts, the tables of estimates and fits, and the provenance.
    pub fn html(&self) -> String {
        let sections = [
            self.figures_section(),
            self.estimates_section(),
            self.fits_section(),
            self.laws_section(),
            self.two_point_section(),
            self.origin_section(),
        ]
        .concat();
        page(&self.title, &self.lead(), &sections)
    }

    fn lead(&self) -> String {
        format!(
            "Mutual information between the beginning and the rest of a text of L tokens, in {}, estimated with {}.",
            self.unit.name(),
            self.model,
        )
    }

    fn figures_section(&self) -> String {
        let figures: String = self.charts().iter().map(|(_, chart)| figure(chart)).collect();
        figures
            + "<p class=\"small\">Error bars are 95 % bootstrap intervals over documents, or ± one standard error \
               if there is no interval. Solid thin lines are fits, except in the chart of surprisal, where the line \
               joins the means. Both axes are logarithmic, so a power law is a straight line.</p>\n"
    }

    fn estimates_section(&self) -> String {
        let (heads, rows) = self.cells();
        let heads = heads.into_iter().chain(["σ, same y", "σ, partner’s y"]);
        let heads: String = heads.map(|head| format!("<th scope=\"col\">{}</th>", escape(head))).collect();
        let mut body = String::new();
        for (mut cells, row) in rows.into_iter().zip(&self.rows) {
            let PairingErrors { same, crossed } = row.estimates.pairing_errors;
            cells.extend([same, crossed].map(|error| format!("{error:.3}")));
            let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
            body += &format!("<tr>{cells}</tr>\n");
        }
        format!(
            "<section>\n<h2>Estimates</h2>\n<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n\
             <tbody>\n{body}</tbody>\n</table></div>\n\
             <p class=\"small\">Of a text’s L tokens, the first ℓ are x and the rest are y. Estimates are means ± \
             standard errors, in {}; values without an error are exact. The columns σ are the direct estimate’s \
             standard error: with the same y in both terms, and with the partner document’s y in the marginal \
             term.</p>\n</section>\n",
            self.unit.name(),
        )
    }

    fn fits_section(&self) -> String {
        if self.fits.is_empty() {
            return String::new();
        }
        let heads = ["series", "L/ℓ", "fit", &format!("A ({})", self.unit.name()), "β", "95 % interval of β", "c"];
        let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
        let rows: String = self.fits.iter().map(fit_row).collect();
        format!(
            "<section>\n<h2>Power laws I = A·L<sup>β</sup> + c</h2>\n<div class=\"scroll\"><table class=\"names\">\n\
             <thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n\
             <p class=\"small\">There are three fits: least squares of ln I on ln L with equal weights, the same fit \
             weighted by inverse variance, and least squares of the relative error of I, with a bias c in the unit \
             of A. Errors are standard errors; intervals come from resampling documents. {}</p>\n</section>\n",
            escape(&self.reading().unwrap_or_default()),
        )
    }

    /// Returns the section on the report's provenance.
    fn origin_section(&self) -> String {
        let mut terms = String::new();
        for (name, value) in self.facts() {
            terms += &format!("<dt>{name}</dt><dd>{}</dd>\n", escape(&value));
        }
        let mut notes: String = self.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
        if !notes.is_empty() {
            notes = format!("<ul class=\"notes\">\n{notes}</ul>\n");
        }
        format!("<section>\n<h2>Provenance</h2>\n<dl>\n{terms}</dl>\n{notes}</section>\n")
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let pairing = match self.pairing {
            Pairing::Same => "the same y as in the conditional term",
            Pairing::Crossed => "the partner document's y",
        };
        let mut facts = vec![
            ("Model", self.model.clone()),
            ("Fingerprint", self.fingerprint.clone()),
            ("Program", format!("surprisal {}", self.version)),
            ("Documents", self.documents.to_string()),
            ("Marginal term", pairing.to_owned()),
        ];
        facts.extend(self.config.clone().map(|config| ("Experiment digest", config)));
        facts.extend(self.seed.map(|seed| ("Seed", seed.to_string())));
        facts.extend(self.divergence_text().map(|divergence| ("KL divergence from the process", divergence)));
        facts.extend(self.correction_text().map(|correction| ("n-gram correction", correction)));
        facts.extend(self.corpus.map(|corpus| ("Corpus", corpus.summary(self.unit))));
        facts.extend(Omission::summaries(&self.left_out).into_iter().map(|summary| ("Left out", summary)));
        facts.extend(self.cost.map(|cost| ("Cost", cost_text(cost))));
        facts
    }

    fn correction_text(&self) -> Option<String> {
        let NgramEntropy { n, nats, error, total, .. } = self.ngram_entropy?;
        let (weight, unit) = (self.ngram_weight?, self.unit.name());
        Some(format!("n = {n}, H = {nats:.3} ± {error:.3} {unit} from {total} n-grams, weight {weight}"))
    }
}

fn cost_text(cost: Cost) -> String {
    let Cost { queries, scripts, shared, .. } = cost;
    let times = scripts as f64 / shared as f64;
    format!(
        "{queries} queries, {shared} token-forwards if prefixes are shared; the L2M paper's scripts would need \
         {scripts} ({times:.1}x)"
    )
}

/// Returns one row of the table of fits.
fn fit_row(SeriesFit { ratio, series, fit }: &SeriesFit) -> String {
    let interval = fit.exponent_interval.map_or(String::new(), |[low, high]| format!("{low:.3} to {high:.3}"));
    format!(
        "<tr><td>{}{}</td><td>{ratio}</td><td>{}</td><td>{}</td><td>{}</td><td>{interval}</td><td>{}</td></tr>\n",
        series.name(),
        escape(&left_out(fit)),
        fit.method.name(),
        with_error(fit.amplitude, fit.amplitude_error),
        with_error(fit.exponent, fit.exponent_error),
        fit.bias.map_or(String::new(), |bias| format!("{bias:.3}")),
    )
}

fn with_error(value: f64, error: Option<f64>) -> String {
    match error {
        Some(error) => format!("{value:.3} ± {error:.3}"),
        None => format!("{value:.3}"),
    }
}

/// Returns an HTML page with a title, a lead paragraph and these sections.
pub(crate) fn page(title: &str, lead: &str, sections: &str) -> String {
    let style = chart_style() + include_str!("report.css");
    let content = format!("<p class=\"lead\">{}</p>\n{sections}", escape(lead));
    surprisal_chart::page(&escape(title), &style, &content)
}

/// Returns a section with a chart and its legend.
pub(crate) fn figure(chart: &Chart) -> String {
    format!(
        "<section>\n<h2>{}</h2>\n{}<div class=\"scroll\">\n{}</div>\n</section>\n",
        escape(&chart.title),
        chart.legend(),
        chart.svg(),
    )
}
