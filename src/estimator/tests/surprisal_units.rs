//! Comparisons of models with different tokenizers: surprisal per byte and per character.
#![allow(clippy::unwrap_used)]

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    Comparison, CorpusIdentity, CorpusStatistics, Counted, Design, EntropyMethod, Estimates, Model, NgramEntropy, Plan,
    PlannedQuery, Report, TextUnit, Unit, WindowPart, WindowSize,
};

const TEXTS: usize = 24;
const PER_TEXT: usize = 2;
const WINDOW: usize = 64;

/// Returns the report of a model whose tokens have about this many bytes. The texts are the same in all reports: each has
/// its own surprisal per byte, around one bit plus `surplus`.
fn report(bytes_per_token: usize, surplus: f64, has_sizes: bool) -> Report {
    let design = Design { splits: vec![WINDOW / 2], ..Design::default() };
    let mut plan = Plan::of_texts((0..TEXTS * PER_TEXT).map(|document| document / PER_TEXT), design).unwrap();
    let mut texts = ChaCha8Rng::seed_from_u64(5);
    let levels: Vec<f64> = (0..TEXTS).map(|_| 1.0 + 0.3 * (texts.random::<f64>() - 0.5)).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(bytes_per_token as u64);
    let (mut answers, mut sizes) = (Vec::new(), Vec::new());
    for document in 0..plan.documents() {
        let level = levels[document / PER_TEXT] + surplus;
        let tokens: Vec<usize> = (0..WINDOW).map(|_| bytes_per_token + rng.random_range(0..2)).collect();
        let bits = |&size: &usize| -(size as f64 * level * std::f64::consts::LN_2) as f32;
        answers.push(tokens.iter().map(bits).collect::<Vec<f32>>());
        let [bytes, tail_bytes] = [&tokens[..], &tokens[WINDOW / 2..]].map(|tokens| tokens.iter().sum::<usize>());
        sizes.push(WindowSize { bytes, characters: bytes / 2, tail_bytes, tail_characters: tail_bytes / 2 });
    }
    if has_sizes {
        plan = plan.with_sizes(sizes).unwrap();
    }
    let answer = |query: &PlannedQuery| match *query {
        PlannedQuery::Whole { document, .. } => answers[document].clone(),
        _ => vec![-1.0; WINDOW / 2],
    };
    let logprobs: Vec<Vec<f32>> = plan.queries().iter().map(answer).collect();
    let model = Model { name: format!("{bytes_per_token}"), fingerprint: "f".to_owned(), max_length: 100 };
    let mut report = Report::new("t", &model, &Estimates::new(&plan, &logprobs, None).unwrap());
    let [name, texts, windows] = ["corpus", "texts", "windows"].map(str::to_owned);
    report.identity = Some(CorpusIdentity { name, texts, tokens: format!("{bytes_per_token}"), windows });
    let (n, method, bias) = (1, EntropyMethod::PlugIn, None);
    report.corpus = Some(CorpusStatistics {
        counted: Counted::Texts,
        texts: TEXTS,
        windowed: Some(TEXTS),
        left_out: 0,
        characters: 1,
        tokens: 1,
        shortest: 1,
        median: 1,
        longest: 1,
        unigrams: NgramEntropy { n, method, nats: 1.0, error: 0.1, total: 1, distinct: 1, bias },
    });
    report
}

fn compare(other: Report) -> Comparison {
    let reports = [("short", report(2, 0.0, true)), ("long", other)];
    Comparison::new(reports.map(|(name, report)| (name.to_owned(), report)).to_vec()).unwrap()
}

#[test]
fn models_with_other_tokenizers_are_compared_per_byte() {
    let comparison = compare(report(5, 0.1, true).in_unit(Unit::Bits));
    let found = comparison.surprisal_differences("long");
    assert_eq!(found.len(), 4);
    for difference in &found {
        let truth = if difference.per == TextUnit::Byte { 0.1 } else { 0.2 };
        let estimate = difference.estimate;
        // Texts differ by 0.09 bits per byte; each text's difference is exact, but for the rounding of its characters.
        assert!((estimate.value - truth).abs() < 0.01 && estimate.error < 0.005, "{difference:?}");
        assert!(estimate.interval.is_some(), "{difference:?}");
    }
    assert!(comparison.differences("long").is_empty() && comparison.surprisal_differences("short").is_empty());
    let text = comparison.table();
    assert!(text.contains("Compare the exponents, and surprisal per byte and per character."), "{text}");
    assert!(text.contains("Surprisal per byte and per character, in bits") && text.contains("minus short"), "{text}");
    assert!(comparison.html().contains("<h2>Surprisal per byte and per character, in bits</h2>"));
    let folder = tempfile::tempdir().unwrap();
    comparison.write(folder.path()).unwrap();
    let csv = std::fs::read_to_string(folder.path().join("compare-surprisal.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * 4, "{csv}");
    assert!(csv.lines().any(|line| line.starts_with("long,byte,last octave,1.1")), "{csv}");
}

/// If a report omits texts that are too short, the other may have omitted others; then nothing is paired by text.
#[test]
fn differences_are_not_paired_if_texts_may_differ() {
    let mut other = report(5, 0.1, true);
    other.corpus.as_mut().unwrap().left_out = 1;
    let found = compare(other).surprisal_differences("long");
    let of = |part, per| found.iter().find(|found| (found.part, found.per) == (part, per)).unwrap().estimate;
    let unpaired = of(WindowPart::Whole, TextUnit::Byte);
    assert!(
        unpaired.interval.is_none() && unpaired.error > 0.015 && (unpaired.value - 0.1).abs() < 0.01,
        "{unpaired:?}"
    );
    let mut elsewhere = report(5, 0.1, true);
    elsewhere.identity = None;
    assert!(compare(elsewhere).surprisal_differences("long").is_empty());
}

#[test]
fn a_report_without_sizes_has_no_row_and_says_why() {
    let without = report(5, 0.1, false);
    assert!(
        without.table().contains("rates are per token only, because the tokenizer does not state"),
        "{}",
        without.table()
    );
    let comparison = compare(without);
    assert!(comparison.surprisal_differences("long").is_empty());
    let table = comparison.table();
    let rows = table.split("Surprisal per byte").nth(1).unwrap();
    assert!(rows.contains("short") && !rows.lines().any(|line| line.trim_start().starts_with("long ")), "{table}");
}

/// The surprisal of windows comes back from the files of a report.
#[test]
fn reports_are_read_back_with_their_windows() {
    let folder = tempfile::tempdir().unwrap();
    let report = report(3, 0.0, true);
    report.write_all(folder.path()).unwrap();
    let read = Report::read(folder.path()).unwrap();
    assert_eq!(read.terms, report.terms);
    assert_eq!(read.entropy_rate, report.entropy_rate);
    let csv = std::fs::read_to_string(folder.path().join("entropy-rate.csv")).unwrap();
    assert!(csv.contains("surprisal,,33,64,byte,"), "{csv}");
}
