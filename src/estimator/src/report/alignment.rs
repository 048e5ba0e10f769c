//! Alignment of two reports: whether they measure the same documents, which settings differ, and sentences that say so.

use crate::corpus::CorpusIdentity;
use crate::plan::Pairing;
use crate::report::Report;
use crate::report::conclusion::FEW_TEXTS;
use crate::statistics::{EntropyMethod, NgramEntropy};

/// The relation between the documents of two reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alignment {
    /// The same tokens at every `L` that both reports have.
    SameDocuments,
    /// The same texts and the same tokenizer, but other windows.
    OtherWindows,
    /// The same texts, but another tokenizer: `L` counts different tokens.
    OtherTokenizer,
    /// Different texts.
    OtherTexts,
    /// A report has no identity because an earlier version wrote it.
    Unknown,
}

impl Alignment {
    pub(crate) fn of(one: &Report, other: &Report) -> Self {
        let (Some(one), Some(other)) = (&one.identity, &other.identity) else { return Self::Unknown };
        let CorpusIdentity { texts, tokens, windows, .. } = other;
        match (&one.texts == texts, &one.tokens == tokens, &one.windows == windows) {
            (true, true, true) => Self::SameDocuments,
            (true, true, false) => Self::OtherWindows,
            (true, false, _) => Self::OtherTokenizer,
            (false, ..) => Self::OtherTexts,
        }
    }

    /// Returns `true` if estimates at the same `L` measure the same quantity.
    pub(crate) fn has_differences(self) -> bool {
        matches!(self, Self::SameDocuments | Self::OtherWindows)
    }
}

/// Returns the settings of a report that differ from those of the first report, other than its unit and its points: one
/// clause for each, with its effect.
pub(crate) fn other_settings(first: &Report, report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    if first.pairing != report.pairing {
        let name = |pairing| match pairing {
            Pairing::Same => "same",
            Pairing::Crossed => "crossed",
        };
        found.push(format!(
            "pairing is {} instead of {}, which changes the errors of direct and corrected estimates, but not the \
             estimates",
            name(report.pairing),
            name(first.pairing)
        ));
    }
    if correction(first) != correction(report) {
        let name = |report: &Report| match correction(report) {
            Some((n, method, weight)) => format!("n = {n}, {}, weight {weight}", entropy_name(method)),
            None => "none".to_owned(),
        };
        let (ours, theirs) = (name(report), name(first));
        found.push(format!("the n-gram correction is {ours} instead of {theirs}, so corrected estimates differ by it"));
    }
    if (first.negatives, first.seed) != (report.negatives, report.seed) {
        let name = |report: &Report| {
            let number = |value: Option<u64>| value.map_or("unknown".to_owned(), |value| value.to_string());
            format!("{} (seed {})", number(report.negatives.map(|count| count as u64)), number(report.seed))
        };
        let (ours, theirs) = (name(report), name(first));
        found.push(format!("negatives are {ours} instead of {theirs}, so vCLUB uses other contexts"));
    }
    found
}

/// Returns the n, the entropy estimator and the weight of a report's correction.
fn correction(report: &Report) -> Option<(usize, EntropyMethod, f64)> {
    let NgramEntropy { n, method, .. } = report.ngram_entropy?;
    Some((n, method, report.ngram_weight?))
}

/// Returns the name of an entropy estimator in experiment files.
fn entropy_name(method: EntropyMethod) -> &'static str {
    match method {
        EntropyMethod::PlugIn => "plug-in",
        EntropyMethod::MillerMadow => "miller-madow",
        EntropyMethod::Grassberger => "grassberger",
        EntropyMethod::ChaoShen => "chao-shen",
    }
}

/// Returns the description of a report's corpus, with the seed that selected or sampled its texts.
pub(crate) fn corpus_of(report: &Report) -> String {
    let name = report.identity.as_ref().map_or("an unknown corpus", |identity| identity.name.as_str());
    report.seed.map_or_else(|| name.to_owned(), |seed| format!("{name}, seed {seed}"))
}

/// Returns a sentence that says whether a report measures the same documents as the first.
pub(crate) fn alignment_sentence((first, one): &(String, Report), (name, other): &(String, Report)) -> String {
    match Alignment::of(one, other) {
        Alignment::SameDocuments => match (&one.terms, &other.terms) {
            (Some(terms), Some(_)) => {
                let texts = terms.texts.last().map_or(0, |text| text + 1);
                format!("{name}: the same tokens as {first}. Differences are paired by document; {}", clusters(texts))
            }
            (None, _) | (_, None) => format!(
                "{name}: the same tokens as {first}, but without documents.csv beside both report.json files, \
                 differences are not paired: their errors treat the reports as independent, and are too large."
            ),
        },
        Alignment::OtherWindows => format!(
            "{name}: the same texts and tokenizer as {first}, but other windows. Differences are not paired: their \
             errors treat the reports as independent."
        ),
        Alignment::OtherTokenizer => format!(
            "{name}: the same texts as {first}, but another tokenizer. L counts different tokens, so estimates at \
             the same L are not comparable, and have no differences. Compare the exponents, and surprisal per byte and \
             per character."
        ),
        Alignment::OtherTexts => format!(
            "{name}: other texts ({}) than {first} ({}). There are no differences.",
            corpus_of(other),
            corpus_of(one)
        ),
        Alignment::Unknown => {
            let of_earlier = if one.identity.is_none() { first } else { name };
            format!(
                "{name}: cannot be matched with {first}, because an earlier version wrote {of_earlier}, without the \
                 identity of its documents. There are no differences. To identify the documents, run the estimate again with the same --out: it sends no query."
            )
        }
    }
}

/// Returns the sentence on the errors of paired differences.
fn clusters(texts: usize) -> String {
    match texts {
        0 | 1 => "their errors apply to windows of this one text, not to other texts.".to_owned(),
        2..FEW_TEXTS => {
            format!("their errors are clustered by text. With only {texts} texts, intervals are indicative.")
        }
        _ => format!("their errors are clustered by text ({texts} texts)."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::Estimates;
    use crate::source::Model;

    fn report(texts: &str, tokens: &str, windows: &str) -> Report {
        let model = Model { name: "m".to_owned(), fingerprint: "f".to_owned(), max_length: 10 };
        let estimates = Estimates { documents: 4, texts: 4, effective_texts: 4.0, ..Estimates::default() };
        let mut report = Report::new("t", &model, &estimates);
        let [name, texts, tokens, windows] = ["corpus", texts, tokens, windows].map(str::to_owned);
        report.identity = Some(CorpusIdentity { name, texts, tokens, windows });
        report
    }

    #[test]
    fn digests_tell_how_documents_differ() {
        let one = report("a", "b", "c");
        for (other, expected) in [
            (report("a", "b", "c"), Alignment::SameDocuments),
            (report("a", "b", "x"), Alignment::OtherWindows),
            (report("a", "x", "c"), Alignment::OtherTokenizer),
            (report("x", "b", "c"), Alignment::OtherTexts),
            (Report { identity: None, ..one.clone() }, Alignment::Unknown),
        ] {
            assert_eq!(Alignment::of(&one, &other), expected);
            assert_eq!(Alignment::of(&other, &one), expected);
        }
    }

    #[test]
    fn other_settings_are_named() {
        let one = report("a", "b", "c");
        assert_eq!(other_settings(&one, &one), Vec::<String>::new());
        let other = Report { pairing: Pairing::Crossed, negatives: Some(4), seed: Some(1), ..one.clone() };
        let found = other_settings(&one, &other).join("; ");
        assert!(found.contains("pairing is crossed instead of same"), "{found}");
        assert!(found.contains("negatives are 4 (seed 1) instead of unknown (seed unknown)"), "{found}");
    }
}
