//! The provenance of a report.

use surprisal_chart::escape_quotes as escape;

use crate::corpus::Omission;
use crate::number::with_error;
use crate::plan::{Cost, Pairing};
use crate::report::Report;
use crate::statistics::NgramEntropy;

impl Report {
    /// Returns the section on the report's provenance.
    pub(super) fn origin_section(&self) -> String {
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
        Some(format!("n = {n}, H = {} {unit} from {total} n-grams, weight {weight}", with_error(nats, error)))
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
