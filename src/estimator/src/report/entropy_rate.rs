//! The entropy rate of a report, as text and HTML.

use std::fmt::Write as _;

use surprisal_chart::escape_quotes as escape;

use crate::estimate::{
    EntropyRate, MIN_RANGES, OMITTED_POSITIONS, RateDoubt, RateFit, RateFits, Sampling, TextUnit, UnitRates,
};
use crate::fit::{RateLaw, is_at_exponent_bound};
use crate::number::significant;
use crate::report::Report;
use crate::report::conclusion::FEW_TEXTS;
use crate::report::difference_tables::with_error_and_interval;
use crate::report::html::{escaped, table};
use crate::report::laws::p_cell;
use crate::report::text::aligned;
use crate::value::Estimate;

impl Report {
    /// Returns the rates as text; an empty string if there are none.
    pub(crate) fn entropy_rate_text(&self) -> String {
        let Some(rate) = &self.entropy_rate else { return String::new() };
        let mut text = format!(
            "\nentropy rate, in {} (± standard error [95 % interval]); surprisal is an upper bound:\n",
            self.unit.name()
        );
        let (heads, rows) = self.rate_cells(rate);
        text += &aligned(heads, rows);
        if let Some(reason) = self.missing_units(rate) {
            text += &format!("{reason}\n");
        }
        let (heads, rows) = fit_cells(rate);
        match rows.is_empty() {
            true => text += &format!("{}\n", self.missing_fits(rate)),
            false => text += &aligned(heads, rows),
        }
        for line in rate_notes(rate, self.effective_texts_rounded()) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Returns the HTML section with the rates and the fits; an empty string if there are none.
    pub(crate) fn entropy_rate_section(&self) -> String {
        let Some(rate) = &self.entropy_rate else { return String::new() };
        let cells = |(heads, rows): (Vec<String>, Vec<Vec<String>>)| {
            let (heads, rows) = escaped(heads, rows);
            table(true, &heads, &rows)
        };
        let rates = cells(self.rate_cells(rate));
        let (heads, rows) = fit_cells(rate);
        let fits =
            if rows.is_empty() { format!("<p>{}.</p>\n", self.missing_fits(rate)) } else { cells((heads, rows)) };
        let notes = self.missing_units(rate).into_iter().chain(rate_notes(rate, self.effective_texts_rounded()));
        let notes: String = notes.map(|note| format!("<li>{}.</li>\n", escape(&note))).collect();
        let formulas = RateLaw::ALL.map(|law| format!("{}: h(n) = {}.", law.name(), escape(law.formula()))).join(" ");
        format!(
            "<section>\n<h2>Entropy rate, in {}</h2>\n{rates}<p class=\"small\">Means ± standard errors, with 95 % \
             intervals from resampled texts in brackets. The mean surprisal of the last octave needs no law, and is an \
             upper bound on the entropy rate. The rates h extrapolate it to infinitely long context. Their intervals do \
             not cover the choice of the law, so compare all laws.</p>\n{fits}<ul class=\"notes\">\n{notes}</ul>\n\
             <p class=\"small\">The laws are fitted by generalized least squares, from the position in the second column \
             on, because the beginning of a window in the middle of a text distorts the first positions. E(N) = H(N) - \
             N·h is the excess entropy of a window. T², k, p and ΔAICc are as in the laws of growth. {formulas}</p>\n\
             {}</section>\n",
            self.unit.name(),
            self.blocks_table(rate),
        )
    }

    /// Returns the table of rates per token, character and byte.
    fn rate_cells(&self, rate: &EntropyRate) -> (Vec<String>, Vec<Vec<String>>) {
        let mut heads = vec!["quantity".to_owned(), "per token".to_owned()];
        let has_units = rate.tail.character.is_some();
        if has_units {
            heads.extend(TextUnit::ALL.map(|unit| format!("per {}", unit.name())));
        }
        let row = |name: String, rates: &UnitRates| {
            let mut cells = vec![name, with_error_and_interval(&rates.token)];
            if has_units {
                let cell =
                    |unit| rates.get(unit).map_or_else(|| "–".to_owned(), |found| with_error_and_interval(&found));
                cells.extend(TextUnit::ALL.map(cell));
            }
            cells
        };
        let window = rate.window;
        let mut rows = vec![
            row(format!("surprisal, positions {} to {window}", rate.tail_first()), &rate.tail),
            row(format!("surprisal, positions 1 to {window}"), &rate.whole),
        ];
        if let Some(fits) = rate.fits.first() {
            for fit in &fits.laws {
                let mark = if fits.rate_doubt(fit).is_some() { " (not determined)" } else { "" };
                rows.push(row(format!("h by {}{mark}", fit.law.name()), &fit.rate));
            }
        }
        (heads, rows)
    }

    /// Returns the reason why there are only rates per token; `None` if there are others.
    fn missing_units(&self, rate: &EntropyRate) -> Option<String> {
        let reason = match (rate.tail.character, &self.corpus) {
            (Some(_), _) => return None,
            (None, Some(_)) => "the tokenizer does not state which bytes of the text each token covers",
            (None, None) => "the documents are not texts",
        };
        Some(format!("rates are per token only, because {reason}"))
    }

    /// Returns the reason why no law is fitted.
    fn missing_fits(&self, rate: &EntropyRate) -> String {
        let (window, documents, texts) = (rate.window, self.documents, self.texts.unwrap_or(self.documents));
        let (clusters, within) = if texts > 1 { (texts, documents.saturating_sub(texts)) } else { (documents, 0) };
        let Some(needed) = rate.needed_freedom(clusters) else {
            return format!(
                "no law is fitted: windows of {window} positions have {} half octaves after the first \
                 {OMITTED_POSITIONS}, and a fit needs {MIN_RANGES}",
                rate.half_octaves()
            );
        };
        let between = self.effective_texts.unwrap_or(clusters as f64) - 1.0;
        let freedom = within.max(between as usize);
        if freedom < needed {
            return format!(
                "no law is fitted: {documents} windows of {texts} {} have {freedom} degrees of freedom, and a fit \
                 needs {needed}",
                if texts == 1 { "text" } else { "texts" }
            );
        }
        "no law is fitted: the covariance of the means is singular".to_owned()
    }

    fn blocks_table(&self, rate: &EntropyRate) -> String {
        let rows: Vec<Vec<String>> = rate
            .blocks
            .iter()
            .map(|block| vec![block.length.to_string(), with_error_and_interval(&block.information)])
            .collect();
        let heads = ["N".to_owned(), format!("I(N; N) in {}", self.unit.name())];
        format!(
            "<details>\n<summary>Information between neighboring blocks, I(N; N) = 2·H(N) - H(2N)</summary>\n{}</details>\n",
            table(false, &heads, &rows)
        )
    }
}

/// Returns the table of fits, from each first position.
fn fit_cells(rate: &EntropyRate) -> (Vec<String>, Vec<Vec<String>>) {
    let excess = format!("E({})", rate.window);
    let heads = ["law", "from", "h per token", "β", &excess, "T²", "k", "p", "ΔAICc", "doubt"].map(str::to_owned);
    let mut rows = Vec::new();
    for fits in &rate.fits {
        let best = fits.best().map_or(0.0, |best| best.aicc);
        for fit in &fits.laws {
            rows.push(vec![
                fit.law.name().to_owned(),
                fits.first.to_string(),
                fit.rate.token.to_string(),
                fit.exponent.map_or_else(|| "–".to_owned(), |exponent| exponent_cell(&exponent)),
                with_error_and_interval(&fit.excess),
                format!("{:.1}", fit.chi2),
                fit.dof.to_string(),
                p_cell(fit.p),
                format!("{:.1}", fit.aicc - best),
                undetermined(fits, fit),
            ]);
        }
    }
    (heads.to_vec(), rows)
}

/// Returns an exponent with its error and its interval. At a bound of its search, it has no error.
fn exponent_cell(exponent: &Estimate) -> String {
    match is_at_exponent_bound(exponent.value) {
        true => significant(exponent.value, 3),
        false => with_error_and_interval(exponent),
    }
}

/// Returns the symbols of the numbers that the data do not determine.
fn undetermined(fits: &RateFits, fit: &RateFit) -> String {
    let symbols = doubts(fits, fit).map(|(symbol, _)| symbol).collect::<Vec<_>>();
    if symbols.is_empty() { "–".to_owned() } else { symbols.join(", ") }
}

/// Returns the numbers that the data do not determine, with the reasons.
fn doubts(fits: &RateFits, fit: &RateFit) -> impl Iterator<Item = (&'static str, RateDoubt)> {
    // E(N) = H(N) - N·h is as doubtful as h.
    let rate = fits.rate_doubt(fit).map(|doubt| [("h", doubt), ("E", doubt)]);
    let exponent = fits.exponent_doubt(fit).filter(|_| fit.exponent.is_some()).map(|doubt| ("β", doubt));
    rate.into_iter().flatten().chain(exponent)
}

/// Returns one statement for each reason, with the numbers that it affects.
fn reasons(rate: &EntropyRate) -> Vec<String> {
    let mut reasons: Vec<(RateDoubt, Vec<String>)> = Vec::new();
    for fits in &rate.fits {
        for fit in &fits.laws {
            for (symbol, doubt) in doubts(fits, fit) {
                let name = format!("{symbol} by {} from {}", fit.law.name(), fits.first);
                match reasons.iter_mut().find(|(found, _)| *found == doubt) {
                    Some((_, names)) => names.push(name),
                    None => reasons.push((doubt, vec![name])),
                }
            }
        }
    }
    reasons.iter().map(|(doubt, names)| format!("not determined, because {doubt}: {}", names.join(", "))).collect()
}

/// Returns further statements on the rates. `texts` is the effective number of texts; `None` if it is unknown.
fn rate_notes(rate: &EntropyRate, texts: Option<usize>) -> Vec<String> {
    let mut notes = reasons(rate);
    if let Some(block) = rate.blocks.last() {
        let (length, value) = (block.length, with_error_and_interval(&block.information));
        notes.push(format!("information between neighboring blocks: I({length}; {length}) = {value}"));
    }
    notes.push(match &rate.local_exponent {
        Some(exponent) => {
            format!("Hilberg exponent of the last three octaves, without a law: {}", with_error_and_interval(exponent))
        }
        None => "Hilberg exponent of the last three octaves: not determined".to_owned(),
    });
    if let Some(RateFits { sampling: Sampling::Within, .. }) = rate.fits.first() {
        notes.push(
            "the tests of the laws apply to these texts only: there are too few for a test over texts".to_owned(),
        );
    }
    if let Some(texts @ ..FEW_TEXTS) = texts {
        notes.push(format!("the effective number of texts is {texts}, so intervals are indicative"));
    }
    notes
}
