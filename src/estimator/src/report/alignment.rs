//! Alignment of two reports: whether they measure the same documents, which settings differ, and sentences that say so.

use crate::corpus::CorpusIdentity;
use crate::estimate::Clusters;
use crate::plan::Pairing;
use crate::report::Report;
use crate::report::conclusion::FEW_TEXTS;
use crate::report::differences::{Unpaired, paired_terms};
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
        Alignment::SameDocuments => match paired_terms(one, other) {
            Ok([terms, _]) => {
                format!(
                    "{name}: the same tokens as {first}. Differences are paired by document; {}",
                    clusters(&terms.texts)
                )
            }
            Err(Unpaired::NoTerms) => format!(
                "{name}: the same tokens as {first}, but without documents.csv beside both report.json files, \
                 differences are not paired: their errors treat the reports as independent, and are too large."
            ),
            Err(Unpaired::OtherTexts) => format!(
                "{name}: the same tokens as {first}, but the documents are grouped into other texts; run the estimate \
                 again with the same --out. Until then, differences are not paired: their errors treat the reports as \
                 independent, and are too large."
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
                 identity of its documents. There are no differences. To identify the documents, run the estimate again \
                 with the same --out: it sends no query."
            )
        }
    }
}

/// Returns the sentence on the errors of paired differences between documents from these texts.
fn clusters(texts: &[usize]) -> String {
    let count = texts.last().map_or(0, |text| text + 1);
    let effective = Clusters::of_texts(texts.iter().copied()).effective_count().round() as usize;
    match (count, effective) {
        (0 | 1, _) => "their errors apply to windows of this one text, not to other texts.".to_owned(),
        (_, FEW_TEXTS..) => format!("their errors are clustered by text ({count} texts)."),
        _ if effective < count => format!(
            "their errors are clustered by text ({count} texts). The effective number of texts is only {effective}, so \
             intervals are indicative."
        ),
        _ => format!("their errors are clustered by text. With only {count} texts, intervals are indicative."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::{DocumentTerms, Estimates};
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

    /// If the documents are the same, the sentence says whether differences are paired, and how many texts count.
    #[test]
    fn the_sentence_says_whether_differences_are_paired() {
        let of = |texts: Option<Vec<usize>>| {
            let terms = texts.map(|texts| DocumentTerms { texts, ..DocumentTerms::default() });
            Report { terms, ..report("a", "b", "c") }
        };
        let sentence = |one, other| alignment_sentence(&("A".to_owned(), of(one)), &("B".to_owned(), of(other)));
        let with = |texts: Vec<usize>| sentence(Some(texts.clone()), Some(texts));
        assert!(sentence(Some(vec![0, 1]), None).contains("without documents.csv"));
        let other = sentence(Some(vec![0, 1, 2]), Some(vec![0, 0, 1]));
        assert!(other.contains("grouped into other texts; run the estimate again with the same --out"), "{other}");
        assert!(!other.contains("are paired by document"), "{other}");
        assert!(
            with(vec![0, 0, 0])
                .ends_with("paired by document; their errors apply to windows of this one text, not to other texts.")
        );
        assert!(with((0..12).collect()).ends_with("clustered by text (12 texts)."));
        assert!(with((0..9).collect()).ends_with("With only 9 texts, intervals are indicative."));
        let uneven = (0..12).chain([11; 8]).collect();
        assert!(with(uneven).contains("(12 texts). The effective number of texts is only 4, so intervals"));
    }
}
