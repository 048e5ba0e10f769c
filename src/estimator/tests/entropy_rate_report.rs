//! The entropy rate in a report: positions, doubts, and the reasons why laws are not fitted.
#![allow(clippy::unwrap_used)]

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{Design, Estimates, Model, Plan, PlannedQuery, Report};

/// Returns a report on texts with these numbers of windows, whose surprisal follows a law, with noise.
fn report(windows: &[usize], window: usize, law: fn(f64) -> f64) -> Report {
    let texts = windows.iter().enumerate().flat_map(|(text, &windows)| vec![text; windows]);
    let design = Design { splits: vec![window / 2], resamples: 100, ..Design::default() };
    let plan = Plan::of_texts(texts, design).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let answer = |query: &PlannedQuery| -> Vec<f32> {
        let length = query.target_length();
        (1..=length).map(|n| -(law(n as f64) + rng.random::<f64>() - 0.5) as f32).collect()
    };
    let logprobs: Vec<Vec<f32>> = plan.queries().iter().map(answer).collect();
    let model = Model { name: "m".to_owned(), fingerprint: "f".to_owned(), max_length: 1000 };
    Report::new("t", &model, &Estimates::new(&plan, &logprobs, None).unwrap())
}

fn falling(n: f64) -> f64 {
    2.0 + 4.0 / n.sqrt()
}

/// Returns the rows of entropy-rate.csv, as cells.
fn csv(report: &Report) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    report.write_all(folder.path()).unwrap();
    let text = std::fs::read_to_string(folder.path().join("entropy-rate.csv")).unwrap();
    assert!(!text.contains("NaN"), "{text}");
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// The last three octaves of 148 positions begin after 148/8, rounded: at 20.
#[test]
fn each_quantity_has_the_positions_that_it_describes() {
    let rows = csv(&report(&[2; 40], 148, falling));
    let positions = |quantity: &str| {
        let row = rows.iter().find(|row| row[0] == quantity).unwrap();
        [row[2].parse::<usize>().unwrap(), row[3].parse().unwrap()]
    };
    assert_eq!(positions("local exponent"), [20, 148]);
    assert_eq!(positions("below last octave"), [75, 148]);
    assert_eq!(positions("excess entropy"), [1, 148]);
    assert_eq!(positions("entropy rate"), [20, 148]);
    let amplitude = rows.iter().find(|row| row[0] == "amplitude").unwrap();
    assert!(amplitude[5].parse::<f64>().is_ok() && amplitude[6..9].iter().all(String::is_empty), "{amplitude:?}");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
}

/// The excess entropy depends on the rate, so it has the same doubt.
#[test]
fn the_excess_entropy_is_as_doubtful_as_the_rate() {
    let report = report(&[2; 40], 256, |_| 3.0);
    let fits = &report.entropy_rate.as_ref().unwrap().fits[0];
    let doubtful = fits.laws.iter().filter(|fit| fits.rate_doubt(fit).is_some()).count();
    assert!((1..fits.laws.len()).contains(&doubtful), "{fits:?}");
    let table = report.table();
    let marked =
        |from: usize| table.lines().filter(move |line| line.contains(&format!(" {from} ")) && line.contains("h, E"));
    assert_eq!(marked(fits.first).count(), doubtful, "{table}");
    let doubts = csv(&report).into_iter().filter(|row| row[0] == "excess entropy").map(|row| row[13].clone());
    let expected = report.entropy_rate.iter().flat_map(|rate| &rate.fits).flat_map(|fits| {
        fits.laws.iter().map(|fit| fits.rate_doubt(fit).map_or(String::new(), |doubt| doubt.to_string()))
    });
    assert_eq!(doubts.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn a_report_without_fits_says_what_they_need() {
    for (windows, window, reason) in [
        (&[2; 40][..], 64, "windows of 64 positions have 4 half octaves after the first 16, and a fit needs 5"),
        (&[3; 4][..], 148, "12 windows of 4 texts have 8 degrees of freedom, and a fit needs 14"),
        (&[9][..], 148, "9 windows of 1 text have 8 degrees of freedom, and a fit needs 14"),
    ] {
        let report = report(windows, window, falling);
        assert!(report.table().contains(&format!("no law is fitted: {reason}\n")), "{}", report.table());
        assert!(report.html().contains(reason));
    }
}

/// One text has most windows, so twelve texts count as two.
#[test]
fn intervals_are_indicative_if_few_texts_count() {
    let note = "the effective number of texts is 2, so intervals are indicative";
    let mut windows = [1; 12];
    windows[3] = 20;
    assert!(report(&windows, 148, falling).table().contains(note));
    assert!(!report(&[2; 12], 148, falling).table().contains("the effective number of texts is"));
}
