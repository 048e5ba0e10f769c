//! Tests of experiment files: the presets, errors for invalid values, and runs from file to report.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use surprisal_estimator::{
    CorpusSpec, Counted, DivergenceBin, EntropyMethod, Experiment, Pairing, Series, Unit, execute,
};

fn preset(name: &str) -> Experiment {
    Experiment::read(&Path::new("../../configs/experiments").join(name)).unwrap()
}

const SMALL: &str = r#"
    seed = 3
    unit = "bits"
    [corpus]
    kind = "santa-fe"
    documents = 40
    symbols = 32
    exponent = 1.3
    doubt = 1e-6
    [measure]
    splits = [2, 4, 8]
    ratios = [2, 3]
    resamples = 50
    two_point = [1, 2]
"#;

#[test]
fn every_preset_loads() {
    let folders = ["../../configs/experiments", "../../docker/kubernetes/job"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(files.len() >= 4);
    for file in files {
        Experiment::read(&file).unwrap();
    }
}

#[test]
fn the_papers_protocol_needs_a_third_of_its_scripts_token_forwards() {
    for name in ["pg19.toml", "wikipedia.toml"] {
        let experiment = preset(name);
        assert_eq!(experiment.measure.pairing, Pairing::Crossed);
        let plan = experiment.plan(10).unwrap();
        assert_eq!((plan.window(), plan.points().len()), (1024, 25));
        assert_eq!(plan.cost().scripts, 10 * 18_453);
        assert!(plan.cost().shared <= 10 * 18_453 / 3, "{:?}", plan.cost());
    }
}

/// The settings of the scripts at <https://github.com/LSquaredM/mutual_info_scaling_law>.
#[test]
fn the_presets_have_the_settings_of_the_papers_scripts() {
    for name in ["pg19.toml", "wikipedia.toml"] {
        let Experiment { measure, corpus: CorpusSpec::Text(corpus), .. } = preset(name) else { panic!("no texts") };
        assert_eq!((corpus.words, corpus.sample, corpus.windows), (Some(5000), Some(1024), 1));
        assert_eq!((corpus.count, corpus.min_words), (Counted::Texts, None));
        let splits: Vec<usize> = (1..=9).map(|power| 1 << power).collect();
        assert_eq!((measure.splits, measure.ratios, measure.window), (splits, vec![2, 3, 4], Some(1024)));
        assert_eq!((measure.negatives, measure.ngram, measure.ngram_weight), (1, 2, 0.8));
        assert_eq!(measure.entropy, EntropyMethod::Grassberger);
        assert_eq!(measure.two_point, (0..=12).map(|power| 1 << power).collect::<Vec<usize>>());
        let longest = |ratio: usize| {
            preset(name).plan(10).unwrap().points().iter().filter(|p| p.ratio == ratio).map(|p| p.split).max()
        };
        assert_eq!([2, 3, 4].map(longest), [Some(512), Some(256), Some(256)]);
    }
}

#[test]
fn one_list_names_the_servers() {
    let parse = |model: &str| Experiment::parse(&format!("{SMALL}\n[model]\n{model}"), Path::new("e.toml"));
    let error = parse("url = \"http://a:1\"\nurls = [\"http://b:2\"]").unwrap_err().to_string();
    assert!(error.contains("model.url is http://a:1, and model.urls is http://b:2; it must be omitted"), "{error}");
    assert!(parse("url = \"http://a:1\"\nurls = []").is_ok());
}

#[tokio::test]
async fn the_oracle_preset_runs_offline_and_finds_the_truth() {
    let report = execute(&preset("oracle.toml"), None, |_| {}).await.unwrap();
    assert_eq!(report.ratios(), [2, 3, 4]);
    let cost = report.cost.unwrap();
    assert_eq!(cost, preset("oracle.toml").plan(64).unwrap().cost());
    for row in &report.rows {
        let direct = row.get(Series::Direct).unwrap();
        assert!((direct.value - row.truth.unwrap()).abs() < 4.0 * direct.error, "{row:?}");
    }
    let reading = report.reading().unwrap();
    assert!(reading.contains("the data are inconclusive"), "the interval contains 1, so no conclusion: {reading}");
    assert_eq!(report.two_point.unwrap().points.len(), 4);
}

/// The divergence that the oracle's doubt causes has a closed form.
#[tokio::test]
async fn the_models_divergence_from_the_process_is_reported() {
    let text = SMALL.replace("doubt = 1e-6", "doubt = 0.1").replace("documents = 40", "documents = 400");
    let report = execute(&Experiment::parse(&text, Path::new("d.toml")).unwrap(), None, |_| {}).await.unwrap();
    let process = surprisal_estimator::SantaFe::new(32, 1.3, 0.1).unwrap();
    let exact = process.divergence(24) / 2_f64.ln();
    let found = report.divergence.unwrap();
    assert!((found.value - exact).abs() < 3.0 * found.error && found.error < 0.1 * exact, "{found}, expected {exact}");
    let said = format!("{found} bits over 24 tokens");
    assert!(report.table().contains(&said) && report.html().contains(&said), "{said}");
    assert!(report.html().contains("0: the model is the process"), "the chart");

    // The oracle loses -ln(1 - doubt) at a token whose symbol was seen before.
    let seen = |t: usize| process.probabilities().iter().map(|p| p * (1.0 - (1.0 - p).powi(t as i32 - 1))).sum::<f64>();
    let mut total = 0.0;
    for DivergenceBin { bin, truth } in &report.divergence_bins {
        let positions = (bin.first..=bin.last).count() as f64;
        let exact = -0.9_f64.log2() * (bin.first..=bin.last).map(seen).sum::<f64>() / positions;
        assert!((truth.unwrap() - exact).abs() < 1e-12, "{bin:?}, {exact}");
        let rounding = 1e-6;
        assert!((bin.estimate.value - exact).abs() < 4.0 * bin.estimate.error + rounding, "{bin:?}, {exact}");
        total += bin.estimate.value * positions;
    }
    assert!((total - found.value).abs() < 1e-9, "the bins add up to the whole window");
    let last = report.divergence_bins.last().unwrap().bin;
    assert!(last.last == 24 && last.estimate.value > 20.0 * last.estimate.error, "{last:?}");
}

/// The digest depends on everything except the addresses of servers and the folders of files.
#[test]
fn equal_experiments_have_equal_digests() {
    let digest = |text: &str, path: &str| Experiment::parse(text, Path::new(path)).unwrap().digest();
    let text = "seed = 1\n[model]\nurl = \"http://a\"\n[corpus]\nkind = \"text\"\nfiles = [\"a.txt\"]\n";
    let one = digest(text, "here/t.toml");
    assert_eq!(one.len(), 16);
    assert_eq!(one, digest(&text.replace("http://a", "http://b"), "/there/t.toml"));
    for (from, to) in [("seed = 1", "seed = 2"), ("a.txt", "b.txt"), ("[corpus]", "api = \"vllm\"\n[corpus]")] {
        assert_ne!(one, digest(&text.replace(from, to), "here/t.toml"), "{to}");
    }
    let small = digest(SMALL, "s.toml");
    assert_ne!(small, digest(&SMALL.replace("resamples = 50", "resamples = 51"), "s.toml"));
}

#[tokio::test]
async fn the_unit_scales_the_report_and_the_seed_changes_its_numbers() {
    let path = Path::new("small.toml");
    let bits = Experiment::parse(SMALL, path).unwrap();
    let nats = Experiment { unit: Unit::Nats, ..bits.clone() };
    let other = Experiment { seed: 4, ..nats.clone() };
    let (bits, nats, other) = (
        execute(&bits, None, |_| {}).await.unwrap(),
        execute(&nats, None, |_| {}).await.unwrap(),
        execute(&other, None, |_| {}).await.unwrap(),
    );
    let direct = |report: &surprisal_estimator::Report| report.rows[2].estimates.direct.value;
    assert!((direct(&bits) * 2_f64.ln() - direct(&nats)).abs() < 1e-12);
    assert!((direct(&other) - direct(&nats)).abs() > 1e-6);
    let numbers = |report: &surprisal_estimator::Report| {
        let two_point = report.two_point.clone().unwrap();
        let (point, ngrams) = (two_point.points[0], report.ngram_entropy.unwrap());
        let (baseline, bias, tokens) = (point.baseline.unwrap(), point.bias.unwrap(), two_point.bias.unwrap());
        let fit = two_point.fit.unwrap();
        [
            [point.estimate.value, baseline.value, baseline.error, baseline.spread, baseline.difference.value],
            [baseline.difference.error, bias.halved, bias.methods[0], bias.methods[1], tokens.halved],
            [ngrams.nats, ngrams.bias.unwrap().halved, fit.amplitude, two_point.entropy.value, 0.0],
        ]
        .concat()
    };
    for (bits, nats) in numbers(&bits).iter().zip(numbers(&nats)) {
        assert!((bits * 2_f64.ln() - nats).abs() < 1e-12, "{bits} {nats}");
    }
}

/// The table, the page, the chart and the CSV file have the baseline; without shuffles, none of them does.
#[tokio::test]
async fn the_baseline_and_the_bias_are_reported() {
    for (shuffles, has_baseline) in [(3, true), (0, false)] {
        let text = SMALL.replace("two_point", &format!("shuffles = {shuffles}\n    two_point"));
        let report = execute(&Experiment::parse(&text, Path::new("b.toml")).unwrap(), None, |_| {}).await.unwrap();
        let (table, page) = (report.table(), report.html());
        let folder = tempfile::tempdir().unwrap();
        report.write_all(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let (csv, chart) = (read("two-point.csv"), read("two-point.svg"));
        let cells: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(cells, [13; 3], "{csv}");
        let point = report.two_point.as_ref().unwrap().points[1];
        assert_eq!(table.contains("d = 2   ") && table.contains("   baseline "), has_baseline, "{table}");
        assert_eq!(chart.contains("shuffled baseline"), has_baseline);
        match point.baseline {
            Some(baseline) => {
                assert!(has_baseline && table.contains(&format!("   difference {}", baseline.difference)));
                assert!(page.contains(&format!("<td>{}</td>", baseline.difference)));
                assert!(csv.contains(&format!(",{},{},", baseline.spread, baseline.difference.value)));
            }
            None => assert!(!has_baseline),
        }
        assert!(
            table.contains("entropies in bits, with coverage, bias, and range of the estimators:\n     2-grams   ")
        );
        assert!(page.contains("four estimators"));
        assert_eq!(surprisal_estimator::Report::read(folder.path()).unwrap(), report);
    }
}

#[tokio::test]
async fn gaussian_documents_are_measured_without_a_server() {
    let text = "[corpus]\nkind = \"gaussian\"\ndocuments = 30\nlength = 32\nexponent = 0.6\nstrength = 0.2\n\
                [measure]\nsplits = [2, 4, 8]\nngram = 0\n";
    let experiment = Experiment::parse(text, Path::new("g.toml")).unwrap();
    let report = execute(&experiment, None, |_| {}).await.unwrap();
    assert!(report.rows.iter().all(|row| row.truth.is_some() && row.estimates.corrected.is_none()));
    let long = Experiment::parse(&text.replace("[2, 4, 8]", "[32]"), Path::new("g.toml")).unwrap();
    let error = execute(&long, None, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("65 tokens") && error.contains("at most 33"), "{error}");
}

/// Windows of one text share its subject and author, which would lower vCLUB, so negatives come from other texts if
/// there are any.
#[test]
fn partners_are_windows_of_other_texts() {
    let text = "[model]\nurl = \"http://a\"\n[corpus]\nkind = \"text\"\nfiles = [\"a.txt\", \"b.txt\"]\n";
    let experiment = Experiment::parse(text, Path::new("t.toml")).unwrap();
    let plan = experiment.plan(experiment.documents().unwrap()).unwrap();
    assert_eq!(plan.documents(), 80);
    assert!(plan.partners().iter().enumerate().all(|(document, partner)| document / 40 != partner / 40));
}

/// The test of additivity needs four whole texts, however many pieces they have: known before any request.
#[test]
fn whole_texts_are_counted_before_a_run() {
    let dir = tempfile::tempdir().unwrap();
    for text in 0..4 {
        let content = "One two three. Four five six.\n".repeat(1 + text);
        std::fs::write(dir.path().join(format!("{text}.txt")), content).unwrap();
    }
    let plan = |files: &str, corpus: &str| {
        let text = format!(
            "[model]\nurl = \"http://a\"\n[corpus]\nkind = \"text\"\nfiles = [{files}]\nwords = 3\nwindows = 2\n{corpus}\n\
             [measure]\nsplits = [2, 4]\nadditivity = [4]\n"
        );
        let experiment = Experiment::parse(&text, &dir.path().join("e.toml")).unwrap();
        experiment.expected_plan().map_err(|error| error.to_string())
    };
    let all = "\"0.txt\", \"1.txt\", \"2.txt\", \"3.txt\"";
    let whole = plan(all, "").unwrap();
    assert_eq!((whole.documents(), whole.text_count()), (2 * (2 + 4 + 6 + 8), 4));
    assert_eq!(whole.texts()[3..5], [0, 1]);
    let sample = plan(all, "sample = 9").unwrap();
    assert_eq!((sample.documents(), sample.text_count()), (18, 4));
    for corpus in ["", "sample = 9"] {
        let error = plan("\"1.txt\", \"2.txt\", \"3.txt\"", corpus).unwrap_err();
        assert!(error.contains("for 3 texts") && error.contains("at least 4"), "{error}");
    }
}

#[test]
fn errors_name_the_key_and_the_limit() {
    let refused = |from: &str, to: &str| {
        assert!(SMALL.contains(from));
        Experiment::parse(&SMALL.replace(from, to), Path::new("folder/wrong.toml")).unwrap_err().to_string()
    };
    for (from, to, hints) in [
        ("seed = 3", "sead = 3", ["sead", "line 2"]),
        ("symbols = 32", "symbols = 32\nsymbol = 1", ["symbol", "unknown field"]),
        ("[2, 3]", "[2, 3]\nsplit = 4", ["split", "unknown field"]),
        ("doubt = 1e-6", "", ["doubt", "missing"]),
        ("santa-fe", "santa", ["santa", "gaussian"]),
        ("\"bits\"", "\"dits\"", ["dits", "nats"]),
        ("[2, 4, 8]", "[2, 2]", ["splits is [2, 2]", "increasing"]),
        ("[2, 3]", "[1]", ["ratios is [1]", "at least 2"]),
        ("documents = 40", "documents = 1", ["documents is 1", "at least 2"]),
        ("resamples = 50", "ngram = 3", ["measure.ngram is 3", "at most 2"]),
        ("resamples = 50", "ngram_weight = 1.5", ["measure.ngram_weight is 1.5", "from 0 to 1"]),
        ("resamples = 50", "negatives = 40", ["negatives is 40", "from 1 to 39"]),
        ("[1, 2]", "[0]", ["measure.two_point is 0", "at least 1"]),
        ("resamples = 50", "shuffles = 1", ["measure.shuffles is 1", "0, or at least 2"]),
        ("resamples = 50", "marginal = 'averaged'", ["measure.negatives is ", "at least 4 for marginal"]),
    ] {
        let error = refused(from, to);
        assert!(error.starts_with("folder/wrong.toml: "), "{error}");
        assert!(hints.iter().all(|hint| error.contains(hint)), "{to}: {error}");
    }
    let texts = "[corpus]\nkind = \"text\"\nfiles = [\"a.txt\"]\n";
    let served = format!("[model]\nurl = \"http://a\"\n{texts}windows = 1\n");
    let served = Experiment::parse(&served, Path::new("t.toml")).unwrap();
    for (documents, hint) in
        [(0, "number of texts is 0; it must be at least 1"), (1, "windows is 1; it must be at least 2")]
    {
        let error = served.plan(documents).unwrap_err().to_string();
        assert!(error.starts_with(hint), "{error}");
    }
    let error = Experiment::parse(texts, Path::new("t.toml")).unwrap_err().to_string();
    assert!(error.contains("model is missing"), "{error}");
}
