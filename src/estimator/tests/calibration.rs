//! Calibration of errors, intervals and tests: seeded experiments with windows that are clustered by text, and with a
//! known law.
#![allow(clippy::unwrap_used)]

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{Design, Estimates, FitMethod, Law, Model, Plan, PlannedQuery, Report, Series};

const SPLITS: [usize; 7] = [2, 4, 8, 16, 32, 64, 128];

/// The surprisal of a token without any context, in nats.
const BASE: f64 = 9.0;

/// The numbers of windows per text.
#[derive(Clone, Copy, Debug)]
enum Sizes {
    Even,
    /// In each pair of texts, the first has half as many windows as the second.
    Alternating,
    /// The first text has a quarter of all windows.
    Dominated,
}

/// A population of texts: a law for the mean information, and the spread of texts and windows around it.
struct Population {
    law: fn(f64) -> f64,
    texts: usize,
    /// Windows per text, in the mean.
    windows: usize,
    sizes: Sizes,
    /// Contexts of each `y`.
    negatives: usize,
    /// The standard deviation of the texts' relative deviations, and of the windows' within a text.
    between: f64,
    within: f64,
}

impl Population {
    fn documents(&self) -> usize {
        self.texts * self.windows
    }

    /// Returns the text of a document.
    fn text(&self, document: usize) -> usize {
        match self.sizes {
            Sizes::Even => document / self.windows,
            Sizes::Alternating => {
                let (two, rest) = (document / (2 * self.windows), document % (2 * self.windows));
                2 * two + usize::from(rest >= 2 * self.windows / 3)
            }
            Sizes::Dominated => {
                let (first, rest) = (self.documents() / 4, self.documents() - self.documents() / 4);
                if document < first { 0 } else { 1 + (document - first) * (self.texts - 1) / rest }
            }
        }
    }

    /// Returns the plan with documents clustered by text, or not.
    fn plan(&self, by_text: bool, seed: u64, resamples: usize) -> Plan {
        let (splits, negatives) = (SPLITS.to_vec(), self.negatives);
        let design = Design { splits, negatives, seed, resamples, ..Design::default() };
        match by_text {
            true => Plan::of_texts((0..self.documents()).map(|document| self.text(document)), design).unwrap(),
            false => Plan::of(self.documents(), design).unwrap(),
        }
    }

    /// Draws the answers to a plan. With the ratio 2, the `y` of different splits are different tokens, so each can have
    /// its own information: the law times one plus relative deviations that the text's windows and the window's
    /// lengths share, plus one of its own. The answers of a document do not depend on the plan's clusters.
    fn answers(&self, plan: &Plan, seed: u64) -> Vec<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let texts: Vec<[f64; 3]> = (0..self.texts).map(|_| [(); 3].map(|()| normal(&mut rng))).collect();
        let windows: Vec<Vec<f64>> =
            (0..self.documents()).map(|_| (0..3 + SPLITS.len()).map(|_| normal(&mut rng)).collect()).collect();
        let place = |split: usize| SPLITS.iter().position(|&other| other == split).unwrap();
        let deviation = |document: usize, split: usize| {
            let (text, window, at) = (&texts[self.text(document)], &windows[document], place(split) as f64);
            // A level and a slope in ln L, for texts and for windows.
            let slope = (at - 3.0) / 3.0;
            self.between * (text[0] + 0.5 * slope * text[1])
                + self.within * (window[0] + 0.5 * slope * window[1] + 0.5 * window[3 + place(split)])
        };
        // The cost of an unrelated context, which depends on the texts of both x and y.
        let unrelated = |x: usize, y: usize, split: usize| {
            (self.law)(2.0 * split as f64) * (0.3 * texts[self.text(x)][2] + 0.3 * windows[y][2])
        };
        let answer = |query: &PlannedQuery| -> Vec<f32> {
            match *query {
                PlannedQuery::Whole { document, end } => {
                    let mut tokens = vec![-BASE as f32; end];
                    for split in SPLITS {
                        let information = (self.law)(2.0 * split as f64) * (1.0 + deviation(document, split));
                        tokens[split..2 * split].fill((-BASE + information / split as f64) as f32);
                    }
                    tokens
                }
                PlannedQuery::Crossed { x, y, split, .. } => {
                    vec![(-BASE + unrelated(x, y, split) / split as f64) as f32; split]
                }
                PlannedQuery::Marginal { split, .. } => vec![-BASE as f32; split],
                PlannedQuery::Joint { .. } | PlannedQuery::JointMarginal { .. } => unreachable!(),
            }
        };
        plan.queries().iter().map(answer).collect()
    }

    fn estimates(&self, by_text: bool, seed: u64, resamples: usize) -> Estimates {
        let plan = self.plan(by_text, seed, resamples);
        Estimates::new(&plan, &self.answers(&plan, seed), None).unwrap()
    }
}

/// Draws a standard normal number (Box and Muller, 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (radius, angle): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

fn power(length: f64) -> f64 {
    1.5 * length.powf(0.6)
}

/// Half of the limit is reached at about 40 tokens.
fn saturating(length: f64) -> f64 {
    12.0 * -(-(length / 60.0).powf(0.9)).exp_m1()
}

/// Counts experiments in which the intervals of direct and vCLUB at the longest length, and of both exponents, cover the
/// truth.
fn coverage(population: &Population, by_text: bool, repetitions: u64) -> [f64; 4] {
    let mut covered = [0_u32; 4];
    for seed in 0..repetitions {
        let estimates = population.estimates(by_text, seed, 400);
        let (last, truth) = (estimates.points.last().unwrap(), (population.law)(256.0));
        let exponent = |series| {
            let same =
                |e: &&surprisal_estimator::ExponentInterval| (e.series, e.method) == (series, FitMethod::LeastSquares);
            (estimates.exponents.iter().find(same).unwrap().interval, 0.6)
        };
        let intervals = [
            (last.direct.interval.unwrap(), truth),
            (last.vclub.interval.unwrap(), truth),
            exponent(Series::Direct),
            exponent(Series::Vclub),
        ];
        for (count, ([low, high], truth)) in covered.iter_mut().zip(intervals) {
            *count += u32::from((low..=high).contains(&truth));
        }
    }
    covered.map(|count| f64::from(count) / repetitions as f64)
}

#[test]
fn intervals_over_texts_cover_the_truth_and_intervals_over_windows_do_not() {
    let population = |texts, windows, sizes, negatives| {
        let (between, within) = (0.3, 0.4);
        Population { law: power, texts, windows, sizes, negatives, between, within }
    };
    for (texts, windows, sizes, negatives, repetitions) in [
        (20, 10, Sizes::Even, 1, 500),
        (60, 4, Sizes::Even, 1, 500),
        (20, 10, Sizes::Even, 8, 200),
        (20, 9, Sizes::Alternating, 1, 500),
        (80, 2, Sizes::Dominated, 1, 500),
    ] {
        let covered = coverage(&population(texts, windows, sizes, negatives), true, repetitions);
        println!(
            "{texts} texts of {windows} windows ({sizes:?}), {negatives} negatives: coverage of direct, vCLUB, \
             exponents {covered:?}"
        );
        assert!(covered.iter().all(|part| (0.92..=0.98).contains(part)), "{covered:?}");
    }
    let by_window = coverage(&population(20, 10, Sizes::Even, 1), false, 100);
    println!("20 texts of 10 windows, intervals over windows: {by_window:?}");
    assert!(by_window.iter().all(|part| *part < 0.8), "{by_window:?}");
}

/// Returns the fraction of experiments in which the power law is rejected, and in which the report draws a conclusion.
fn rejections(population: &Population, repetitions: u64) -> [f64; 2] {
    let model = Model { name: "m".to_owned(), fingerprint: "f".to_owned(), max_length: 1000 };
    let (mut rejected, mut concluded) = (0_u32, 0_u32);
    for seed in 0..repetitions {
        let estimates = population.estimates(true, seed, 100);
        let report = Report::new("t", &model, &estimates);
        let power = report.laws_of(2, Series::Direct).unwrap().get(Law::Power).unwrap();
        rejected += u32::from(power.is_rejected());
        let reading = report.reading().unwrap();
        assert!(!(power.is_rejected() && reading.contains("at least as fast as")), "{reading}");
        concluded += u32::from(reading.contains("at least as fast as"));
    }
    [rejected, concluded].map(|count| f64::from(count) / repetitions as f64)
}

#[test]
fn a_power_law_is_rejected_if_the_truth_saturates_and_kept_if_it_holds() {
    for (texts, windows, sizes) in [(24, 5, Sizes::Even), (100, 1, Sizes::Even), (100, 2, Sizes::Dominated)] {
        let population = |law| Population { law, texts, windows, sizes, negatives: 1, between: 0.3, within: 0.4 };
        let wrong = rejections(&population(saturating), 200);
        let right = rejections(&population(power), 200);
        println!(
            "{texts} texts of {windows} windows ({sizes:?}): rejected, concluded {wrong:?} if saturating, {right:?} if a power law"
        );
        assert!(wrong[0] >= 0.9 && wrong[1] < 0.1, "{wrong:?}");
        assert!(right[0] <= 0.08 && right[1] > 0.85, "{right:?}");
    }
}
