//! The report as one HTML page that needs nothing else, and writing it so that a reader never meets half of it.

use std::path::Path;

use crate::error::Error;
use crate::estimate::PairingErrors;
use crate::files::write_atomically;
use crate::plan::Pairing;
use crate::report::escape::escape;
use crate::report::plot::Chart;
use crate::report::{Report, Row, SeriesFit, left_out, plot};

impl Report {
    /// One self-contained page: the plot, the table, the fits, and how it was made. No scripts, no other files.
    pub fn html(&self) -> String {
        let sections = [self.figures(), self.table_html(), self.fits_html(), self.made()].concat();
        page(&self.title, &self.lead(), &sections)
    }

    /// Writes [`html`](Self::html) to `path`, atomically: the file is there whole or as it was.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_html(&self, path: &Path) -> Result<(), Error> {
        write_atomically(path, self.html().as_bytes())
    }

    /// Reads a report's JSON, or the report.json of a folder.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, or is no report.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join("report.json") } else { path.to_owned() };
        let read = std::fs::read(&path).and_then(|json| Ok(serde_json::from_slice(&json)?));
        read.map_err(|source| Error::File { path, source })
    }

    /// Writes the report as JSON to `path`, atomically.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::File { path: path.to_owned(), source: error.into() })?;
        write_atomically(path, json.as_bytes())
    }

    /// Writes each chart as an SVG file of its own, and the numbers as CSV, into a folder; each atomically.
    ///
    /// # Errors
    /// [`Error::File`] if one cannot be written.
    pub fn write_files(&self, folder: &Path) -> Result<(), Error> {
        let charts = self.charts().into_iter().map(|(name, chart)| (format!("{name}.svg"), chart.standalone()));
        for (name, text) in charts.chain(self.tables()) {
            write_atomically(&folder.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    fn lead(&self) -> String {
        format!(
            "How much the beginning of a text of L tokens tells about the rest, in {}, according to {}.",
            self.unit.name(),
            self.model,
        )
    }

    fn figures(&self) -> String {
        let figures: String = self.charts().iter().map(|(_, chart)| figure(chart)).collect();
        figures
            + "<p class=\"small\">Bars are 95 % intervals over documents, or one standard error where there are none; thin lines \
               are fits. Both axes are logarithmic, so a power law is a straight line.</p>\n"
    }

    fn table_html(&self) -> String {
        let (heads, rows) = self.cells();
        let heads = heads.into_iter().chain(["σ, same y", "σ, partner’s y"]);
        let heads: String = heads.map(|head| format!("<th scope=\"col\">{}</th>", escape(head))).collect();
        let row = |(cells, row): (&Vec<String>, &Row)| {
            let PairingErrors { same, crossed } = row.estimates.pairing_errors;
            let errors = [same, crossed].map(|error| format!("{error:.3}"));
            let cells = cells.iter().chain(&errors).map(|cell| format!("<td>{}</td>", escape(cell)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        format!(
            "<section>\n<h2>Estimates</h2>\n<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n\
             <tbody>\n{}</tbody>\n</table></div>\n\
             <p class=\"small\">L tokens in all, ℓ of them in x; {}, mean ± standard error. σ is the direct estimate’s standard \
             error with the same y in both terms, and with the partner’s in the marginal one.</p>\n</section>\n",
            rows.iter().zip(&self.rows).map(row).collect::<String>(),
            self.unit.name(),
        )
    }

    fn fits_html(&self) -> String {
        if self.fits.is_empty() {
            return String::new();
        }
        let with_error = |value: f64, error: Option<f64>| match error {
            Some(error) => format!("{value:.3} ± {error:.3}"),
            None => format!("{value:.3}"),
        };
        let row = |SeriesFit { ratio, series, fit }: &SeriesFit| {
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
        };
        let heads = ["series", "L/ℓ", "fit", &format!("A ({})", self.unit.name()), "β", "β, 95 %", "c"];
        let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
        format!(
            "<section>\n<h2>Power laws, I = A·L<sup>β</sup> + c</h2>\n<div class=\"scroll\"><table class=\"names\">\n\
             <thead><tr>{heads}</tr></thead>\n<tbody>\n{}</tbody>\n</table></div>\n\
             <p class=\"small\">Least squares of ln I on ln L, plain and weighted by inverse variance; with a bias c, of the \
             relative error. {}</p>\n</section>\n",
            self.fits.iter().map(row).collect::<String>(),
            escape(&self.reading().unwrap_or_default()),
        )
    }

    fn made(&self) -> String {
        let pairing = match self.pairing {
            Pairing::Same => "of the same y as the conditional term",
            Pairing::Crossed => "of the partner document's y",
        };
        let mut facts = vec![
            ("Model", self.model.clone()),
            ("Fingerprint", self.fingerprint.clone()),
            ("Estimator", format!("surprisal {}", self.version)),
            ("Documents", self.documents.to_string()),
            ("Marginal term", pairing.to_owned()),
        ];
        facts.extend(self.config.clone().map(|config| ("Configuration", config)));
        facts.extend(self.seed.map(|seed| ("Seed", seed.to_string())));
        facts.extend(self.divergence_told().map(|told| ("KL divergence from the process", told)));
        if let (Some(entropy), Some(weight)) = (self.ngram_entropy, self.ngram_weight) {
            let (n, total) = (entropy.n, entropy.total);
            let (nats, error) = (entropy.nats, entropy.error);
            facts.push((
                "n-gram correction",
                format!(
                    "n = {n}, H = {nats:.3} ± {error:.3} {} from {total} n-grams, weight {weight}",
                    self.unit.name()
                ),
            ));
        }
        facts.extend(self.corpus.map(|corpus| ("Corpus", corpus.told(self.unit))));
        if let Some(cost) = self.cost {
            let times = cost.scripts as f64 / cost.shared as f64;
            facts.push((
                "Cost",
                format!(
                    "{} queries, {} token-forwards with shared prefixes once; the paper's scripts: {} ({times:.1}x)",
                    cost.queries, cost.shared, cost.scripts
                ),
            ));
        }
        let fact = |(name, value): &(&str, String)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value));
        let note = |note: &String| format!("<li>{}</li>\n", escape(note));
        let notes = match self.notes[..] {
            [] => String::new(),
            _ => format!("<ul class=\"notes\">\n{}</ul>\n", self.notes.iter().map(note).collect::<String>()),
        };
        format!(
            "<section>\n<h2>How it was made</h2>\n<dl>\n{}</dl>\n{notes}</section>\n",
            facts.iter().map(fact).collect::<String>(),
        )
    }
}

/// A page of sections.
pub(crate) fn page(title: &str, lead: &str, sections: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{plot}{style}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"lead\">{lead}</p>\n{sections}</main>\n</body>\n</html>\n",
        title = escape(title),
        plot = plot::STYLE,
        style = include_str!("report.css"),
        lead = escape(lead),
    )
}

/// A section that is a chart and its legend.
pub(crate) fn figure(chart: &Chart) -> String {
    format!(
        "<section>\n<h2>{}</h2>\n{}<div class=\"scroll\">\n{}</div>\n</section>\n",
        escape(&chart.title),
        chart.legend(),
        chart.svg(),
    )
}
