//! Tests of reports: their tables, pages and files.
#![allow(clippy::unwrap_used)]

use surprisal_estimator::{
    Comparison, Convergence, ConvergencePoint, Correction, Divergence, EntropyMethod, Estimate, Estimates,
    ExponentInterval, FitMethod, HalvesDifference, Model, NgramEntropy, Omission, PairingErrors, PointEstimate,
    PositionBin, Report, SantaFe, Series, Unit,
};

fn estimate(value: f64, error: f64) -> Estimate {
    Estimate::new(value, error)
}

fn convergence() -> Vec<Convergence> {
    let of_series = |(series, value): (Series, f64)| {
        let from = |texts: usize| {
            let side = 20.0 / texts as f64;
            let estimate = Estimate { interval: Some([value - side, value + side]), ..estimate(value, side / 2.0) };
            ConvergencePoint { texts, estimate }
        };
        Convergence { ratio: 2, length: 16, split: 8, series, points: vec![from(2), from(32), from(40)] }
    };
    [(Series::Direct, 2.0), (Series::Vclub, 5.0)].map(of_series).to_vec()
}

fn halves() -> HalvesDifference {
    let difference = Estimate { interval: Some([0.03, 1.17]), ..estimate(0.6, 0.28) };
    HalvesDifference { ratio: 2, length: 16, texts: [20, 20], difference, freedom: 36.5, p: 0.04 }
}

/// A report with three splits; the first direct estimate is not positive.
fn report(title: &str) -> Report {
    let split = |split: usize, direct: f64| PointEstimate {
        ratio: 2,
        length: 2 * split,
        split,
        direct: estimate(direct, 0.12),
        pairing_errors: PairingErrors { same: 0.12, crossed: 0.3 },
        corrected: Some(estimate(direct + 0.3, 0.13)),
        vclub: estimate(2.0 * direct + 1.0, 5.3),
        averaged: None,
        averaged_limit: None,
        info_nce: None,
    };
    let entropy = NgramEntropy {
        n: 2,
        method: EntropyMethod::Grassberger,
        nats: 8.25,
        error: 0.01,
        total: 5000,
        distinct: 3000,
        bias: None,
    };
    let estimates = Estimates {
        documents: 40,
        texts: 40,
        effective_texts: 40.0,
        correction: Some(Correction::new(entropy)),
        points: vec![split(2, -0.1), split(4, 1.0), split(8, 2.0)],
        convergence: convergence(),
        halves: vec![halves()],
        exponents: vec![ExponentInterval {
            ratio: 2,
            series: Series::Direct,
            method: FitMethod::LeastSquares,
            interval: [0.5, 1.5],
        }],
        nll: vec![estimate(3.0, 0.1); 16],
        nll_bins: vec![
            PositionBin { first: 1, last: 1, estimate: estimate(4.0, 0.2) },
            PositionBin { first: 2, last: 16, estimate: Estimate { interval: Some([2.5, 3.5]), ..estimate(3.0, 0.1) } },
        ],
        entropy_rate: None,
        surprisals: vec![48.0; 40],
        ..Estimates::default()
    };
    let model = Model { name: "/models/a<b>&\"c\"".to_owned(), fingerprint: "f00d".to_owned(), max_length: 100 };
    Report::new(title, &model, &estimates)
        .with_truth(&SantaFe::new(100, 1.5, 1e-3).unwrap())
        .with_note("windows <evenly> spaced")
}

/// The tests of all ratios have a common level of 5 %, so p = 0.04 is not significant in one of two.
#[test]
fn the_halves_are_tested_at_a_common_level() {
    let mut report = report("t");
    let sentence = "The halves differ significantly, so the corpus may not be homogeneous.";
    assert!(report.table().contains(sentence), "{}", report.table());
    report.halves.push(HalvesDifference { ratio: 4, ..halves() });
    assert!(!report.table().contains(sentence), "{}", report.table());
    report.halves[0].p = 0.02;
    assert!(report.table().contains(sentence), "{}", report.table());
}

#[test]
fn json_has_everything_and_reads_back() {
    let report = report("Santa Fe");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["rows"][1]["length"], 8);
    assert_eq!(value["rows"][1]["direct"]["value"], 1.0);
    assert_eq!(value["fits"][1]["series"], "direct");
    assert_eq!(value["fits"][1]["left_out"][0], 4.0);
    assert_eq!(value["fits"][1]["exponent_interval"][1], 1.5);
    assert_eq!(value["nll"].as_array().unwrap().len(), 16);
    assert_eq!(value["nll_bins"][1]["last"], 16);
}

/// Reports of earlier versions have no bins. Their chart of surprisal is a line through the means.
#[test]
fn reports_without_bins_still_have_their_charts() {
    let mut value = serde_json::to_value(report("Santa Fe")).unwrap();
    value.as_object_mut().unwrap().remove("nll_bins");
    let old: Report = serde_json::from_value(value).unwrap();
    let charts = |report: &Report| report.html().matches("<svg class=\"plot\"").count();
    assert_eq!((old.nll_bins.len(), charts(&old)), (0, charts(&report("Santa Fe"))));
}

#[test]
fn convergence_is_a_table_a_chart_and_a_statement() {
    let report = report("Santa Fe");
    let (table, html) = (report.table(), report.html());
    assert!(table.contains("convergence with the number of texts at L/ℓ = 2, L = 16"), "{table}");
    let row = |name: &str| table.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
    assert!(row("32 ").contains("2.0 [1.4, 2.6]") && row("32 ").contains("5.0 [4.4, 5.6]"), "{table}");
    for text in [&table, &html] {
        assert!(text.contains("± 0.25 nats from 40 texts") && text.contains("needs about 160 texts"), "{text}");
        assert!(text.contains("0.60 ± 0.28 nats (p = 0.04") && text.contains("may not be homogeneous"), "{text}");
    }
    // The truth is a line; the estimates are bands with three marks each.
    let svg = html.split("<svg class=\"plot\"").find(|svg| svg.contains("number of texts")).unwrap();
    let svg = svg.split("</svg>").next().unwrap();
    assert!(svg.contains("vCLUB estimate, 32: 5.00 ± 0.31 nats") && svg.contains("<title>truth</title>"), "{svg}");
    assert_eq!((svg.matches("fill-opacity").count(), svg.matches("class=\"mark\"").count()), (2, 6));
}

/// Reports of earlier versions do not have the convergence.
#[test]
fn reports_without_convergence_are_read() {
    let mut value = serde_json::to_value(report("Santa Fe")).unwrap();
    for key in ["convergence", "halves"] {
        value.as_object_mut().unwrap().remove(key).unwrap();
    }
    let old: Report = serde_json::from_value(value).unwrap();
    assert!(!old.table().contains("convergence") && !old.html().contains("Convergence"));
}

#[test]
fn the_divergence_by_position_is_shown_and_converted() {
    let bin = |first, last, value| PositionBin { first, last, estimate: estimate(value, 0.01) };
    let bins = vec![bin(1, 1, -0.02), bin(2, 16, 0.4)];
    let divergence = Divergence { total: estimate(6.0, 0.3), bins };
    let exact = |tokens: usize| 0.375 * tokens.saturating_sub(1) as f64;
    let report = report("Santa Fe").with_divergence(&divergence).with_exact_divergence(exact);
    let line =
        "  by position, in nats per token: -0.020 ± 0.010 at 1 (truth 0), ..., 0.400 ± 0.010 at 2–16 (truth 0.375)";
    assert!(report.table().contains(line), "{}", report.table());
    let svg = report.html();
    assert!(svg.contains("KL divergence from the process, 2–16: 0.400 ± 0.010 nats"), "{svg}");
    assert!(svg.contains("KL divergence from the process, 1: -0.020 ± 0.010 nats"), "negative means are shown");
    let bits = report.in_unit(Unit::Bits);
    let found = bits.divergence_bins[1];
    assert!((found.truth.unwrap() - 0.375 * std::f64::consts::LOG2_E).abs() < 1e-12);
    assert!((found.bin.estimate.error - 0.01 * std::f64::consts::LOG2_E).abs() < 1e-12);
    let json = serde_json::to_string(&bits).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap().divergence_bins, bits.divergence_bins);
}

/// Neither a page nor a text shows a number with more digits than it is good for, or none that it has.
#[test]
fn extreme_fits_are_readable() {
    let mut report = report("Santa Fe");
    let fit = &mut report.fits[0].fit;
    (fit.amplitude, fit.amplitude_error, fit.exponent) = (11_508_705_445_992.0, Some(2_018_462_503_789.0), -6.25);
    let fit = &mut report.fits[1].fit;
    (fit.amplitude, fit.amplitude_error) = (2.34e-7, None);
    for text in [report.table(), report.html()] {
        assert!(text.contains("(1.15 ± 0.20)·10¹³") && text.contains("2.34·10⁻⁷"), "{text}");
        assert!(!text.contains("11508705445992") && !text.contains("0.000 "), "{text}");
    }
    assert!(report.html().contains(": 2.34·10<sup>-7</sup>·L<sup>"), "the legend");
}

#[test]
fn the_table_is_aligned_and_names_omitted_points() {
    let table = report("Santa Fe").table();
    let lines: Vec<&str> = table.lines().take(4).collect();
    assert!(lines[0].contains("vCLUB limit") && lines[2].contains("1.00 ± 0.12"), "{table}");
    assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{table}");
    assert!(table.contains("without L = 4: not positive"), "{table}");
    assert!(
        table.contains("direct at L = 16: ± 0.12 with the same y in both terms, ± 0.30 with the partner's"),
        "{table}"
    );
}

/// A comparison converts all reports to one unit, which its table names.
#[test]
fn tables_explain_the_brackets() {
    let interval = "the exponent's 95 % interval in brackets:\n";
    let table = report("Santa Fe").table();
    assert!(table.contains(interval) && table.contains("[0.500, 1.500]"), "{table}");
    let reports = [("bits", report("Santa Fe").in_unit(Unit::Bits)), ("nats", report("Santa Fe"))];
    let compared = Comparison::new(reports.map(|(name, report)| (name.to_owned(), report)).to_vec()).unwrap().table();
    let (head, lines) = compared.split_once('\n').unwrap();
    assert!(head.contains("in bits,") && compared.contains(interval), "{compared}");
    assert!(lines.lines().any(|line| line.starts_with("nats") && line.contains("[0.500, 1.500]")), "{compared}");
}

#[test]
fn bits_scale_all_information_but_no_exponent() {
    let nats = report("Santa Fe");
    let bits = nats.clone().in_unit(Unit::Bits);
    let factor = std::f64::consts::LOG2_E;
    let close = |bits: f64, nats: f64| assert!((bits - factor * nats).abs() < 1e-12, "{bits}, {nats}");
    close(bits.rows[1].estimates.vclub.error, nats.rows[1].estimates.vclub.error);
    close(bits.rows[1].truth.unwrap(), nats.rows[1].truth.unwrap());
    close(bits.nll[0].value, 3.0);
    close(bits.convergence[1].points[2].estimate.interval.unwrap()[0], 4.5);
    close(bits.halves[0].difference.error, 0.28);
    assert_eq!(bits.halves[0].p, 0.04);
    close(bits.nll_bins[1].estimate.interval.unwrap()[0], 2.5);
    close(bits.fits[1].fit.amplitude, nats.fits[1].fit.amplitude);
    assert_eq!(bits.fits[1].fit.exponent, nats.fits[1].fit.exponent);
    assert!(bits.table().contains("in bits") && bits.html().contains("in bits"));
    assert!((bits.in_unit(Unit::Nats).rows[1].estimates.direct.value - 1.0).abs() < 1e-12);
}

#[test]
fn the_page_escapes_texts_and_is_self_contained() {
    let html = report("</title><script>alert(1)</script>").html();
    assert!(html.contains("&lt;script&gt;alert(1)"));
    assert!(html.contains("<td>0.120</td><td>0.300</td>"));
    assert!(html.contains("estimated with a&lt;b&gt;&amp;&quot;c&quot;.") && html.contains("&lt;evenly&gt;"));
    assert!(html.contains("<dt>Model</dt><dd>/models/a&lt;b&gt;&amp;&quot;c&quot;</dd>"), "the full name");
    for outside in ["<script", "<b>", "http://", "https://", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn files_and_texts_that_are_left_out_are_listed() {
    let left_out = |path: &str, reason: &str, texts| Omission { path: path.into(), reason: reason.into(), texts };
    let mut report = report("Santa Fe");
    report.left_out = vec![left_out("a<b>.pdf", "format not supported: PDF", None), left_out("c", "empty", Some(3))];
    let (table, html) = (report.table(), report.html());
    assert!(table.contains("left out of the corpus: 1 file (format not supported: PDF): a<b>.pdf\n"), "{table}");
    assert!(table.contains("left out of the corpus: 3 texts in 1 file (empty): c\n"), "{table}");
    assert!(html.contains("<dt>Left out</dt><dd>1 file (format not supported: PDF): a&lt;b&gt;.pdf</dd>"), "{html}");
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["left_out"][1], serde_json::json!({"path": "c", "reason": "empty", "texts": 3}));
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

#[test]
fn the_plot_shows_positive_points_within_its_frame() {
    let html = report("Santa Fe").html();
    let svg = html.split("<svg class=\"plot\"").nth(1).unwrap();
    // Two direct, three corrected, three vCLUB.
    assert_eq!(svg.matches("<g class=\"point\">").count(), 8);
    assert!(svg.contains("direct estimate, 8: 1.00 ± 0.12 nats"));
    assert!(!html.contains("NaN"));
    let heights = svg.split("cy=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    assert!(heights.map(|y| y.parse::<f64>().unwrap()).all(|y| (0.0..=480.0).contains(&y)));
}

#[test]
fn a_report_without_positive_estimates_is_still_a_page() {
    let mut report = report("Nothing");
    for row in &mut report.rows {
        (row.truth, row.vclub_limit) = (None, None);
        row.estimates.corrected = None;
        (row.estimates.direct.value, row.estimates.vclub.value) = (-1.0, 0.0);
    }
    assert!(report.html().contains("No estimate is positive"));
    assert_eq!(report.series(), [Series::Direct, Series::Vclub]);
}

#[test]
fn each_chart_and_table_is_a_separate_file() {
    let directory = std::env::temp_dir().join(format!("surprisal-files-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    report("Santa Fe").write_files(&directory).unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let csv = read("bipartite.csv");
    assert_eq!(csv.lines().next().unwrap(), "ratio,length,split,series,value,error,low,high,unit");
    assert!(csv.contains("\n2,8,4,direct,1,0.12,,,nats\n"), "{csv}");
    // Truth, three estimators and the limit, at three splits.
    assert_eq!(csv.lines().count(), 1 + 3 * 5);
    assert_eq!(read("pairing.csv").lines().nth(2).unwrap(), "2,8,4,0.12,0.3,nats");
    assert!(read("fits.csv").contains("2,direct,least squares,"));
    assert_eq!(read("nll.csv").lines().nth(1).unwrap(), "1,3,0.1,,,nats");
    assert_eq!(read("nll-bins.csv").lines().nth(2).unwrap(), "2,16,3,0.1,2.5,3.5,nats");
    assert_eq!(read("convergence.csv").lines().nth(5).unwrap(), "2,16,8,vCLUB,32,5,0.3125,4.375,5.625,nats");
    assert_eq!(read("halves.csv").lines().nth(1).unwrap(), "2,16,20,20,0.6,0.28,0.03,1.17,36.5,0.04,nats");
    for name in ["bipartite-2", "convergence-2", "nll"] {
        let svg = read(&format!("{name}.svg"));
        assert!(svg.starts_with("<svg") && svg.contains("xmlns=") && !svg.contains("var("), "{name}");
        assert!(std::fs::read(directory.join(format!("{name}.pdf"))).unwrap().starts_with(b"%PDF-"), "{name}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn pages_are_written_whole_or_not_at_all() {
    let directory = std::env::temp_dir().join(format!("surprisal-report-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("report.html");
    std::fs::write(&path, "old").unwrap();
    let report = report("Santa Fe");
    report.write_html(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), report.html());
    let missing = directory.join("missing").join("report.html");
    let error = report.write_html(&missing).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    // A directory has the file's name: the rename fails, and no temporary file remains.
    let taken = directory.join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(report.write_html(&taken).is_err());
    let mut names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["report.html", "taken"]);
    std::fs::remove_dir_all(&directory).unwrap();
}
