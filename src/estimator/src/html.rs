//! The report as one HTML page that needs nothing else, and writing it so that a reader never meets half of it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::report::left_out;
use crate::{Error, Pairing, Report, SeriesFit, plot};

impl Report {
    /// One self-contained page: the plot, the table, the fits, and how it was made. No scripts, no other files.
    pub fn html(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n\
             <h1>{title}</h1>\n<p class=\"lead\">{lead}</p>\n{sections}</main>\n</body>\n</html>\n",
            title = escape(&self.title),
            style = include_str!("report.css"),
            lead = escape(&self.lead()),
            sections = [self.figure(), self.table_html(), self.fits_html(), self.made()].concat(),
        )
    }

    /// Writes [`html`](Self::html) to `path`, atomically: the file is there whole or as it was.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_html(&self, path: &Path) -> Result<(), Error> {
        write_atomically(path, &self.html()).map_err(|source| Error::File { path: path.to_owned(), source })
    }

    /// Writes the report as JSON to `path`, atomically.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), Error> {
        let file = |source| Error::File { path: path.to_owned(), source };
        let json = serde_json::to_string_pretty(self).map_err(|error| file(error.into()))?;
        write_atomically(path, &json).map_err(file)
    }

    fn lead(&self) -> String {
        format!(
            "How much the first half of a text of L tokens tells about the second, in nats, according to {}.",
            self.model
        )
    }

    fn figure(&self) -> String {
        format!(
            "<section>\n<h2>Mutual information against length</h2>\n{}\
             <div class=\"scroll\">\n{}</div>\n\
             <p class=\"small\">Bars are one standard error; thin lines are the fits below. Both axes are logarithmic, so a \
             power law is a straight line.</p>\n</section>\n",
            plot::legend(self),
            plot::svg(self),
        )
    }

    fn table_html(&self) -> String {
        let (heads, rows) = self.cells();
        let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{}</th>", escape(head))).collect();
        let row = |cells: &Vec<String>| {
            let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        format!(
            "<section>\n<h2>Estimates</h2>\n<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n\
             <tbody>\n{}</tbody>\n</table></div>\n\
             <p class=\"small\">L tokens in all, ℓ of them in x; nats, mean ± standard error.</p>\n</section>\n",
            rows.iter().map(row).collect::<String>(),
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
        let row = |SeriesFit { series, fit }: &SeriesFit| {
            format!(
                "<tr><td>{}{}</td><td>{}</td><td>{}</td></tr>\n",
                series.name(),
                escape(&left_out(fit)),
                with_error(fit.amplitude, fit.amplitude_error),
                with_error(fit.exponent, fit.exponent_error),
            )
        };
        format!(
            "<section>\n<h2>Power laws, I = A·L<sup>β</sup></h2>\n<div class=\"scroll\"><table class=\"names\">\n\
             <thead><tr><th scope=\"col\">series</th><th scope=\"col\">A (nats)</th><th scope=\"col\">β</th></tr></thead>\n\
             <tbody>\n{}</tbody>\n</table></div>\n\
             <p class=\"small\">Least squares of ln I on ln L.</p>\n</section>\n",
            self.fits.iter().map(row).collect::<String>(),
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
        if let (Some(entropy), Some(weight)) = (self.ngram_entropy, self.ngram_weight) {
            let (n, total) = (entropy.n, entropy.total);
            let (nats, error) = (entropy.nats, entropy.error);
            facts.push((
                "n-gram correction",
                format!("n = {n}, H = {nats:.3} ± {error:.3} nats from {total} n-grams, weight {weight}"),
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

/// Text as HTML: nothing in it is markup.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Writes beside `path`, to disk, and then renames.
fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    })
}
