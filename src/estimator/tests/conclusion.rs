//! Tests of a report's conclusions.
#![allow(clippy::unwrap_used)]

use surprisal_estimator::{
    Estimate, Estimates, Fit, FitMethod, Law, LawFit, LocalExponent, Marginal, Model, PairingErrors, PointEstimate,
    Report, Sampling, Series, SeriesFit, SeriesLaws,
};

const NO_CONCLUSION: &str = "No conclusion about the L2M condition";

fn law(law: Law, p: f64, aicc: f64) -> LawFit {
    LawFit { law, parameters: vec![2.0, 0.5, 1.0], errors: None, chi2: 7.25, dof: 7, p, aicc }
}

/// Returns a report with one fitted series, whose exponent is 0.6 with an interval.
fn report(laws: Vec<LawFit>) -> Report {
    let estimate = Estimate::new(1.0, 0.1);
    let point = |split: usize| PointEstimate {
        ratio: 2,
        length: 2 * split,
        split,
        direct: estimate,
        pairing_errors: PairingErrors { same: 0.1, crossed: 0.3 },
        corrected: None,
        vclub: estimate,
        averaged: None,
        averaged_limit: None,
        info_nce: None,
    };
    let estimates = Estimates {
        documents: 40,
        texts: 40,
        effective_texts: 40.0,
        points: vec![point(2), point(4), point(8)],
        ..Estimates::default()
    };
    let model = Model { name: "llama".to_owned(), fingerprint: "f00d".to_owned(), max_length: 100 };
    let mut report = Report::new("title", &model, &estimates);
    if !laws.is_empty() {
        let (sampling, freedom) = (Sampling::Clusters, 39);
        report.laws = vec![SeriesLaws { ratio: 2, series: Series::Direct, sampling, freedom, laws }];
    }
    with_exponent(report, 0.6, Some([0.5, 0.7]))
}

fn with_exponent(mut report: Report, exponent: f64, exponent_interval: Option<[f64; 2]>) -> Report {
    let fit = Fit { exponent_interval, ..Fit::of(&[(1.0, 1.0), (2.0, 2_f64.powf(exponent))]).unwrap() };
    assert_eq!(fit.method, FitMethod::LeastSquares);
    report.fits = vec![SeriesFit { ratio: 2, series: Series::Direct, fit }];
    report
}

fn kept() -> Report {
    report(vec![law(Law::Power, 0.4, 10.0)])
}

#[test]
fn the_conclusion_follows_from_the_whole_interval() {
    for (exponent, interval, hint) in [
        (0.76, [0.7, 0.8], "as fast as L^0.760 (95 % interval of the exponent: 0.700 to 0.800). A key-value"),
        (
            0.9,
            [0.8, 1.0],
            "grows as L, satisfies this condition; a fixed-size state in a fixed-size model does not satisfy this",
        ),
        (1.02, [0.873, 1.829], "grows as L, may or may not satisfy this condition (the data are inconclusive); a"),
        (0.98, [0.9, 1.1], "grows as L, may or may not satisfy this condition (the data are inconclusive); a"),
        (1.2, [1.1, 1.3], "grows as L, does not satisfy this condition; a"),
        (
            0.05,
            [-0.01, 0.1],
            "grows as L, satisfies this condition; a fixed-size state in a fixed-size model may or may not",
        ),
        (0.8, [-0.2, 1.8], "may or may not satisfy this condition (the data are inconclusive); a fixed-size"),
        (-0.2, [-0.3, -0.1], "a fixed-size state in a fixed-size model satisfies this condition."),
    ] {
        let reading = with_exponent(kept(), exponent, Some(interval)).reading().unwrap();
        assert!(reading.contains(hint), "{reading}");
        assert!(reading.contains("according to this model: the data do not reject a power law (T² = 7.2"), "{reading}");
    }
}

#[test]
fn there_is_no_conclusion_without_an_interval_or_a_test() {
    let reading = with_exponent(kept(), 0.6, None).reading().unwrap();
    assert!(reading.starts_with(NO_CONCLUSION) && reading.contains("has no 95 % interval"), "{reading}");
    let unrelated_contexts = Some(8);
    let averaged = Report { marginal: Marginal::Averaged, unrelated_contexts, ..kept() }.reading().unwrap();
    assert!(averaged.starts_with(NO_CONCLUSION) && averaged.contains("too few lengths for a fit"), "{averaged}");
    let reading = report(Vec::new()).reading().unwrap();
    assert!(reading.starts_with(NO_CONCLUSION) && reading.contains("a power law cannot be tested"), "{reading}");
}

#[test]
fn there_is_no_conclusion_from_a_rejected_law() {
    let rejected = law(Law::Power, 5e-5, 20.0);
    let reading = report(vec![rejected.clone()]).reading().unwrap();
    assert!(reading.starts_with(NO_CONCLUSION) && !reading.contains("at least as fast"), "{reading}");
    assert!(reading.contains("reject a power law (T² = 7.2, 7 degrees of freedom, p = 5e-5)"), "{reading}");
    assert!(reading.contains("None of the laws"), "{reading}");
    let reading = report(vec![rejected, law(Law::Saturating, 0.3, 12.0)]).reading().unwrap();
    assert!(reading.contains("a saturating law, C·(1 - exp(-(L/τ)^γ)), describes them best"), "{reading}");
}

#[test]
fn a_better_law_prevents_the_conclusion_and_an_equal_one_qualifies_it() {
    let reading = |aicc| report(vec![law(Law::Power, 0.1, 10.0), law(Law::Logarithmic, 0.5, aicc)]).reading().unwrap();
    let better = reading(2.0);
    assert!(better.starts_with(NO_CONCLUSION) && better.contains("(AICc lower by 8.0)"), "{better}");
    let equal = reading(9.0);
    assert!(equal.contains("at least as fast as L^0.600"), "{equal}");
    assert!(equal.contains("describes the data at least as well (AICc lower by 1.0)"), "{equal}");
    assert!(!reading(11.0).contains("logarithmic"));
}

#[test]
fn saturation_is_reported() {
    let local = |exponent, interval| LocalExponent {
        ratio: 2,
        series: Series::Direct,
        from: 8,
        to: 16,
        exponent,
        interval: Some(interval),
    };
    for (exponent, interval, saturates) in
        [(-0.07, [-0.2, 0.1], true), (0.3, [0.1, 0.5], false), (0.2, [-0.5, 0.9], false)]
    {
        let report = Report { local_exponents: vec![local(exponent, interval)], ..kept() };
        let reading = report.reading().unwrap();
        assert_eq!(reading.contains("From L = 8 to 16, the estimate hardly grows"), saturates, "{reading}");
    }
}

#[test]
fn few_texts_are_reported() {
    let reading = |texts| Report { texts, ..kept() }.reading().unwrap();
    let clustered = reading(Some(4));
    assert!(clustered.contains("clustered by text (4 texts; 40 windows). With 4 texts, intervals are indicative only"));
    assert!(reading(Some(1)).contains("All 40 windows come from one text"));
    assert!(!reading(Some(40)).contains("text (") && !reading(None).contains("clustered"));
    let uneven = Report { texts: Some(30), effective_texts: Some(8.4), ..kept() }.reading().unwrap();
    assert!(uneven.contains("(30 texts, which count as 8, because some have more windows than others; 40 windows)"));
    let few = "The effective number of texts is 8, so intervals are only indicative. Use more texts, or texts of similar \
               length, for at least 10.";
    assert!(uneven.contains(few), "{uneven}");
}

#[test]
fn contexts_from_the_text_of_their_y_are_reported() {
    let reading = |negatives, unrelated| {
        let (negatives, unrelated_contexts) = (Some(negatives), Some(unrelated));
        Report { negatives, unrelated_contexts, ..kept() }.reading().unwrap()
    };
    assert!(!reading(8, 8).contains("contexts"));
    assert!(reading(8, 5).contains("Some y have contexts from their own text: only 5 of 8 are from other texts."));
    assert!(reading(8, 5).contains("vCLUB may therefore be too small, and the averaged marginal uses fewer contexts."));
    assert!(reading(8, 1).contains("vCLUB may therefore be too small, and there is no averaged marginal."));
    assert!(reading(1, 0).contains("vCLUB may therefore be too small."));
}

/// Without a conclusion from the averaged estimate, the report says which contexts are missing, and the scope.
#[test]
fn a_missing_averaged_fit_is_explained_by_the_contexts() {
    let reading = |unrelated| {
        let (marginal, texts) = (Marginal::Averaged, Some(5));
        let (negatives, unrelated_contexts) = (Some(8), Some(unrelated));
        Report { marginal, texts, negatives, unrelated_contexts, ..kept() }.reading().unwrap()
    };
    let few = reading(3);
    assert!(few.starts_with(NO_CONCLUSION) && !few.contains("negatives"), "{few}");
    assert!(few.contains("needs at least 4 contexts from other texts for each y, but some y have 3. Use more texts"));
    assert!(few.contains("only 3 of 8 are from other texts") && few.contains("With 5 texts, intervals"), "{few}");
    let enough = reading(8);
    assert!(enough.contains("Use more `negatives`") && enough.contains("clustered by text (5 texts;"), "{enough}");
}
