//! Entropy rates and Hilberg exponents of processes with known ones, and the coverage of their intervals.
#![allow(clippy::unwrap_used)]

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    Design, EntropyRate, Estimates, Experiment, Model, Plan, PlannedQuery, RateDoubt, RateFit, RateLaw, Report,
    SantaFe, TextUnit, Unit, WindowSize, execute,
};

const WINDOW: usize = 512;

/// The true rate `h`, amplitude and exponent of the synthetic surprisal.
const TRUTH: [f64; 3] = [2.0, 4.0, 0.5];

/// Draws a standard normal number (Box and Muller, 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (radius, angle): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// Returns the estimates of an experiment with texts of several windows. The surprisal at each position is the law's,
/// plus a level that the text's windows share, one of the window, a relative deviation of the amplitude, and noise. The
/// sizes of tokens vary with the text.
fn synthetic(texts: usize, windows: usize, law: fn(f64) -> f64, seed: u64) -> EntropyRate {
    synthetic_with(texts, windows, law, seed, 400).entropy_rate.unwrap()
}

fn synthetic_with(texts: usize, windows: usize, law: fn(f64) -> f64, seed: u64, resamples: usize) -> Estimates {
    let design = Design { splits: vec![WINDOW / 2], seed, resamples, ..Design::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut answers, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..texts {
        let (level, amplitude, size) =
            (0.1 * normal(&mut rng), 1.0 + 0.1 * normal(&mut rng), 4.0 + 0.3 * normal(&mut rng));
        for _ in 0..windows {
            let of_window = 0.1 * normal(&mut rng);
            let surprisal = |n: usize, rng: &mut ChaCha8Rng| {
                let mean = law(f64::INFINITY) + amplitude * (law(n as f64) - law(f64::INFINITY));
                -(mean + level + of_window + 1.5 * normal(rng)) as f32
            };
            answers.push((1..=WINDOW).map(|n| surprisal(n, &mut rng)).collect::<Vec<f32>>());
            let [bytes, tail_bytes] = [WINDOW, WINDOW / 2].map(|tokens| (size * tokens as f64) as usize);
            sizes.push(WindowSize { bytes, characters: bytes, tail_bytes, tail_characters: tail_bytes });
        }
    }
    let texts = (0..texts * windows).map(|document| document / windows);
    let plan = Plan::of_texts(texts, design).unwrap().with_sizes(sizes).unwrap();
    let answer = |query: &PlannedQuery| match *query {
        PlannedQuery::Whole { document, .. } => answers[document].clone(),
        _ => vec![-1.0; WINDOW / 2],
    };
    let logprobs: Vec<Vec<f32>> = plan.queries().iter().map(answer).collect();
    Estimates::new(&plan, &logprobs, None).unwrap()
}

fn hilberg(n: f64) -> f64 {
    let [rate, amplitude, exponent] = TRUTH;
    rate + amplitude * n.powf(exponent - 1.0)
}

fn fit(rate: &EntropyRate, law: RateLaw) -> &RateFit {
    rate.fits[0].get(law).unwrap()
}

/// With 500 experiments, the intervals cover the last octave in 95.8 % and 94.0 % (per token and per byte), the rate in
/// 93.6 % and 93.0 %, the exponent in 93.2 % and the excess entropy in 93.8 %, and the law is rejected in 4.2 %. The
/// bounds allow for the spread of fewer experiments.
#[test]
fn intervals_cover_the_rate_and_the_exponent() {
    const REPETITIONS: u64 = 120;
    let (mut covered, mut rejected, mut undetermined) = ([0_u32; 6], 0_u32, 0_u32);
    let mean = |first: usize| (first..=WINDOW).map(|n| hilberg(n as f64)).sum::<f64>() / (WINDOW + 1 - first) as f64;
    let excess = WINDOW as f64 * (mean(1) - TRUTH[0]);
    for seed in 0..REPETITIONS {
        let rate = synthetic(40, 3, hilberg, seed);
        let power = fit(&rate, RateLaw::Power);
        rejected += u32::from(power.p < 0.05);
        undetermined += u32::from(rate.fits[0].exponent_doubt(power).is_some());
        let truths = [
            (rate.tail.token, mean(WINDOW / 2 + 1)),
            (rate.tail.byte.unwrap(), mean(WINDOW / 2 + 1) / 4.0),
            (power.rate.token, TRUTH[0]),
            (power.rate.byte.unwrap(), TRUTH[0] / 4.0),
            (power.exponent.unwrap(), TRUTH[2]),
            (power.excess, excess),
        ];
        for (count, (estimate, truth)) in covered.iter_mut().zip(truths) {
            let [low, high] = estimate.interval.unwrap();
            *count += u32::from((low..=high).contains(&truth));
        }
    }
    let parts = covered.map(|count| f64::from(count) / REPETITIONS as f64);
    println!(
        "coverage of the last octave (per token, per byte), h (per token, per byte), β and E(N): {parts:?}; law \
         rejected {rejected}, exponent not determined {undetermined} of {REPETITIONS}"
    );
    assert!(parts.iter().all(|part| (0.87..=0.99).contains(part)), "{parts:?}");
    assert!(u64::from(rejected) <= REPETITIONS / 10, "{rejected}");
}

/// Tokens without memory: no excess entropy, and no exponent.
#[test]
fn a_process_without_memory_has_no_exponent() {
    const REPETITIONS: u64 = 40;
    let (mut excess, mut determined) = (0_u32, 0_u32);
    for seed in 0..REPETITIONS {
        let rate = synthetic(40, 3, |_| 3.0, seed);
        let [low, high] = fit(&rate, RateLaw::Constant).excess.interval.unwrap();
        excess += u32::from((low..=high).contains(&0.0));
        let fits = &rate.fits[0];
        determined += u32::from(fits.exponent_doubt(fit(&rate, RateLaw::Power)).is_none());
    }
    println!("no memory: E(N) = 0 in {excess} intervals, exponent determined in {determined} of {REPETITIONS}");
    assert!(excess >= 35 && determined <= 3, "{excess}, {determined}");
}

/// Surprisal that still falls with the logarithm of the position has no limit within reach.
#[test]
fn a_logarithm_has_no_rate() {
    let mut doubted = 0;
    for seed in 0..20 {
        let rate = synthetic(40, 3, |n| if n.is_finite() { 9.0 - 0.8 * n.ln() } else { 0.0 }, seed);
        let doubt = rate.fits[0].rate_doubt(fit(&rate, RateLaw::Power));
        doubted += u32::from(doubt.is_some());
    }
    println!("logarithm: rate not determined in {doubted} of 20");
    assert!(doubted >= 18, "{doubted}");
}

/// The tokens of a Santa Fe process are a symbol by Zipf's law and a coin that a text learns, so its rate is the entropy
/// of the law, and its surprisal falls as `n^(1/a - 1)`.
#[tokio::test]
async fn the_santa_fe_process_has_its_rate_and_exponent() {
    let text = r#"
        title = "Santa Fe"
        seed = 3
        [corpus]
        kind = "santa-fe"
        documents = 1500
        symbols = 3000
        exponent = 1.5
        doubt = 1e-6
        [measure]
        splits = [8, 256]
        ngram = 0
    "#;
    let report = execute(&Experiment::parse(text, "folder".as_ref()).unwrap(), None, |_| {}).await.unwrap();
    let process = SantaFe::new(3000, 1.5, 1e-6).unwrap();
    let truth: f64 = process.probabilities().iter().map(|p| -p * p.ln()).sum();
    let rate = report.entropy_rate.as_ref().unwrap();
    assert_eq!((rate.window, rate.tail_first(), rate.tail.character, rate.bytes_per_token), (512, 257, None, None));
    assert!(rate.tail.token.interval.unwrap()[1] > truth, "an upper bound: {:?}", rate.tail);
    let power = fit(rate, RateLaw::Power);
    let within = |estimate: surprisal_estimator::Estimate, truth: f64| {
        let [low, high] = estimate.interval.unwrap();
        assert!((low..=high).contains(&truth), "{truth}: {estimate:?}");
    };
    println!("{}", report.table());
    within(power.rate.token, truth);
    within(power.exponent.unwrap(), 1.0 / 1.5);
    // Two independent estimates of the same information: from neighboring blocks, and in closed form.
    let block = rate.blocks.iter().find(|block| block.length == 256).unwrap();
    assert!((block.information.value - process.direct_limit(256, 256)).abs() < 4.0 * block.information.error);
    assert!(report.table().contains("rates are per token only, because the documents are not texts"));
}

/// Few texts, and no resamples: the numbers are there, but the data do not determine them.
#[test]
fn few_texts_and_no_intervals_are_doubts() {
    let few = synthetic(12, 12, hilberg, 1);
    let power = fit(&few, RateLaw::Power);
    assert_eq!(few.fits[0].rate_doubt(power), Some(RateDoubt::FewTexts), "{power:?}");
    let many = synthetic_with(40, 3, hilberg, 1, 0).entropy_rate.unwrap();
    let power = fit(&many, RateLaw::Power);
    assert!(power.rate.token.interval.is_none() && power.rate.token.error > 0.0);
    assert_eq!(many.fits[0].rate_doubt(power), Some(RateDoubt::NoInterval));
}

/// In bits, all information is divided by ln 2, and the laws still describe it; exponents stay.
#[test]
fn laws_and_blocks_are_converted_to_bits() {
    let model = Model { name: "m".to_owned(), fingerprint: "f".to_owned(), max_length: 10_000 };
    let report = Report::new("t", &model, &synthetic_with(40, 3, hilberg, 2, 0));
    let [nats, bits] = [report.clone(), report.in_unit(Unit::Bits)].map(|report| report.entropy_rate.unwrap());
    let same = |nats: f64, bits: f64| assert!((nats - bits * std::f64::consts::LN_2).abs() < 1e-9, "{nats} {bits}");
    for law in RateLaw::ALL {
        let (a, b) = (fit(&nats, law), fit(&bits, law));
        [20.0, 300.0, 1000.0].into_iter().for_each(|n| same(a.at(n), b.at(n)));
        same(a.excess.value, b.excess.value);
        same(a.below_tail.error, b.below_tail.error);
        assert_eq!(a.exponent, b.exponent);
    }
    same(nats.blocks[3].information.value, bits.blocks[3].information.value);
    same(nats.whole.byte.unwrap().error, bits.whole.byte.unwrap().error);
    assert_eq!(nats.bytes_per_token, bits.bytes_per_token);
}

#[test]
fn sizes_must_match_the_documents() {
    let plan = Plan::of(4, Design { splits: vec![8], ..Design::default() }).unwrap();
    let error = plan.with_sizes(vec![WindowSize::default(); 3]).unwrap_err().to_string();
    assert!(error.contains("number of sizes") && error.contains('4'), "{error}");
}

/// Without text, there are no rates per byte; without enough positions, there are no fits.
#[test]
fn short_windows_have_a_mean_and_no_fit() {
    let plan = Plan::of(30, Design { splits: vec![2, 8], ..Design::default() }).unwrap();
    let logprobs: Vec<Vec<f32>> = plan
        .queries()
        .iter()
        .enumerate()
        .map(|(i, query)| vec![-1.0 - (i % 7) as f32; query.target_length()])
        .collect();
    let rate = Estimates::new(&plan, &logprobs, None).unwrap().entropy_rate.unwrap();
    assert!(rate.fits.is_empty() && rate.local_exponent.is_none());
    assert!(TextUnit::ALL.iter().all(|&unit| rate.tail.get(unit).is_none() && rate.whole.get(unit).is_none()));
    assert_eq!(rate.blocks.iter().map(|block| block.length).collect::<Vec<_>>(), [1, 2, 4, 8]);
}
