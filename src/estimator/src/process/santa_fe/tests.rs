//! Tests of the closed forms against sums over all sequences, and against samples.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

fn sum(process: &SantaFe, history: &[u32], tokens: &[u32]) -> f64 {
    process.logprobs(history, tokens).unwrap().iter().sum()
}

/// Returns every sequence of `length` token ids.
fn sequences(process: &SantaFe, length: usize) -> Vec<Vec<u32>> {
    (0..length).fold(vec![vec![]], |shorter, _| {
        let grow = |sequence: Vec<u32>| (0..process.bos()).map(move |token| [&sequence[..], &[token]].concat());
        shorter.into_iter().flat_map(grow).collect()
    })
}

/// Returns the probability of `tokens` under the process itself: their conditional probability given the coins,
/// averaged over all outcomes of the coins.
fn probability(process: &SantaFe, tokens: &[u32]) -> f64 {
    let coins = 1_u32 << process.probabilities().len();
    let given = |flips: u32| -> f64 {
        let chance = |&token: &u32| {
            let fits = flips >> (token / 2) & 1 == token & 1;
            f64::from(u8::from(fits)) * process.probabilities()[token as usize / 2]
        };
        tokens.iter().map(chance).product()
    };
    (0..coins).map(given).sum::<f64>() / f64::from(coins)
}

#[test]
fn log_probability_equals_enumeration() {
    let process = SantaFe::new(3, 1.2, 0.3).unwrap();
    for tokens in sequences(&process, 4) {
        let (exact, found) =
            (probability(&process, &tokens), process.log_probabilities(&tokens).unwrap().iter().sum::<f64>().exp());
        assert!((exact - found).abs() < 1e-15, "{tokens:?}: {exact} {found}");
    }
    assert!(process.log_probabilities(&[0, process.bos()]).is_err());
}

/// The log-probability of each token is the difference of those of two beginnings.
#[test]
fn log_probabilities_are_conditional() {
    let process = SantaFe::new(3, 1.2, 0.3).unwrap();
    let tokens = process.sample(8, &mut ChaCha8Rng::seed_from_u64(4));
    for (t, found) in process.log_probabilities(&tokens).unwrap().into_iter().enumerate() {
        let exact = (probability(&process, &tokens[..=t]) / probability(&process, &tokens[..t])).ln();
        assert!((exact - found).abs() < 1e-12, "{t}: {exact} {found}");
    }
    assert_eq!(process.log_probabilities(&[0, 2, 1]).unwrap()[2], f64::NEG_INFINITY);
}

#[test]
fn closed_forms_equal_enumeration() {
    for (symbols, m, n) in [(1, 2, 2), (2, 1, 1), (2, 2, 2), (3, 1, 2), (3, 2, 1), (2, 3, 2), (2, 0, 2)] {
        let process = SantaFe::new(symbols, 1.2, 0.05).unwrap();
        let (mut truth, mut direct, mut vclub) = (0.0, 0.0, 0.0);
        for x in sequences(&process, m) {
            for y in sequences(&process, n) {
                let (px, py) = (probability(&process, &x), probability(&process, &y));
                let joint = probability(&process, &[&x[..], &y[..]].concat());
                let conditional = sum(&process, &x, &y);
                vclub += (joint - px * py) * conditional;
                if joint > 0.0 {
                    truth += joint * (joint / (px * py)).ln();
                    direct += joint * (conditional - sum(&process, &[], &y));
                }
            }
        }
        for (name, enumerated, closed) in [
            ("truth", truth, process.mutual_information(m, n)),
            ("direct", direct, process.direct_limit(m, n)),
            ("vCLUB", vclub, process.vclub_limit(m, n)),
        ] {
            assert!(
                (enumerated - closed).abs() < 1e-12,
                "{name} for K={symbols}, m={m}, n={n}: {enumerated} by enumeration, {closed} in closed form"
            );
        }
    }
}

#[test]
fn two_point_information_and_divergence_equal_enumeration() {
    let process = SantaFe::new(3, 1.2, 0.05).unwrap();
    let all = sequences(&process, 2);
    let mut two_point = 0.0;
    for pair in &all {
        let (joint, left, right) =
            (probability(&process, pair), probability(&process, &pair[..1]), probability(&process, &pair[1..]));
        if joint > 0.0 {
            two_point += joint * (joint / (left * right)).ln();
        }
    }
    assert!((two_point - process.two_point()).abs() < 1e-12);
    for n in [1, 2, 4] {
        let term = |tokens: &Vec<u32>| match probability(&process, tokens) {
            0.0 => 0.0,
            p => p * (p.ln() - sum(&process, &[], tokens)),
        };
        let divergence: f64 = sequences(&process, n).iter().map(term).sum();
        assert!((divergence - process.divergence(n)).abs() < 1e-12, "{n}");
    }
}

#[test]
fn closed_forms_agree_with_samples() {
    let (m, n, pairs) = (24, 40, 4000);
    let process = SantaFe::new(200, 1.3, 1e-3).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut direct, mut vclub) = (vec![], vec![]);
    for _ in 0..pairs {
        let document = process.sample(m + n, &mut rng);
        let stranger = process.sample(m, &mut rng);
        let (x, y) = document.split_at(m);
        let conditional = sum(&process, x, y);
        direct.push(conditional - sum(&process, &[], y));
        vclub.push(conditional - sum(&process, &stranger, y));
    }
    for (values, limit) in [(direct, process.direct_limit(m, n)), (vclub, process.vclub_limit(m, n))] {
        let mean = values.iter().sum::<f64>() / f64::from(pairs);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(pairs - 1);
        let error = (variance / f64::from(pairs)).sqrt();
        assert!((mean - limit).abs() < 3.0 * error, "{mean} ± {error}, expected {limit}");
    }
}

#[test]
fn samples_follow_the_zipf_law() {
    let process = SantaFe::new(5, 1.0, 0.1).unwrap();
    let document = process.sample(100_000, &mut ChaCha8Rng::seed_from_u64(1));
    for (symbol, p) in process.probabilities().iter().enumerate() {
        let count = document.iter().filter(|&&token| token as usize / 2 == symbol).count() as f64;
        let spread = (1e5 * p * (1.0 - p)).sqrt();
        assert!((count - 1e5 * p).abs() < 4.0 * spread, "symbol {symbol}: {count}");
        let values = document.iter().filter(|&&token| token as usize / 2 == symbol);
        assert_eq!(values.collect::<std::collections::HashSet<_>>().len(), 1, "one coin per document");
    }
}

#[test]
fn the_direct_limit_converges_to_the_truth_as_doubt_vanishes() {
    let process = SantaFe::new(300, 1.4, 1e-9).unwrap();
    let truth = process.mutual_information(64, 64);
    assert!((process.direct_limit(64, 64) / truth - 1.0).abs() < 1e-8);
}

#[test]
fn errors_name_the_invalid_argument() {
    for (symbols, exponent, doubt, field) in [
        (0, 1.0, 0.1, "symbols"),
        (3, f64::NAN, 0.1, "exponent"),
        (3, -1.0, 0.1, "exponent"),
        (3, 1.0, 0.0, "doubt"),
        (3, 1.0, 0.5, "doubt"),
    ] {
        let error = SantaFe::new(symbols, exponent, doubt).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    let process = SantaFe::new(3, 1.0, 0.1).unwrap();
    assert!(process.logprobs(&[process.bos()], &[0]).is_ok());
    assert!(process.logprobs(&[], &[process.bos()]).is_err());
    assert!(process.logprobs(&[7], &[0]).is_err());
}

proptest! {
    #[test]
    fn the_oracle_is_normalized_after_every_history(
        symbols in 1_usize..20,
        doubt in 1e-6..0.49,
        history in prop::collection::vec(0_u32..20, 0..40),
    ) {
        let process = SantaFe::new(symbols, 1.1, doubt).unwrap();
        let history: Vec<u32> = history.iter().map(|token| token % process.bos()).collect();
        let total: f64 = (0..process.bos()).map(|token| sum(&process, &history, &[token]).exp()).sum();
        prop_assert!((total - 1.0).abs() < 1e-12);
    }

    #[test]
    fn scoring_in_two_steps_changes_nothing(tokens in prop::collection::vec(0_u32..16, 2..40), cut in 1_usize..39) {
        let process = SantaFe::new(8, 1.1, 0.01).unwrap();
        let cut = cut.min(tokens.len() - 1);
        let whole = process.logprobs(&[], &tokens).unwrap();
        let tail = process.logprobs(&tokens[..cut], &tokens[cut..]).unwrap();
        prop_assert_eq!(&whole[cut..], &tail[..]);
    }

    #[test]
    fn the_vclub_limit_is_above_the_truth_and_the_direct_limit_below(
        symbols in 1_usize..500, exponent in 0.0..3.0, doubt in 1e-9..0.2, m in 1_usize..600, n in 1_usize..600,
    ) {
        let process = SantaFe::new(symbols, exponent, doubt).unwrap();
        let truth = process.mutual_information(m, n);
        prop_assert!(process.direct_limit(m, n) <= truth);
        prop_assert!(process.vclub_limit(m, n) >= truth * (1.0 - 1e-12));
    }
}

#[test]
fn given_probabilities_define_the_same_process() {
    let zipf = SantaFe::new(5, 1.2, 1e-3).unwrap();
    let given = SantaFe::from_probabilities(zipf.probabilities().to_vec(), zipf.doubt()).unwrap();
    let samples = [&zipf, &given].map(|process| process.sample(20, &mut ChaCha8Rng::seed_from_u64(1)));
    assert_eq!(samples[0], samples[1]);
    assert_eq!(zipf.logprobs(&[], &samples[0]).unwrap(), given.logprobs(&[], &samples[0]).unwrap());
    assert_ne!(zipf.fingerprint(), given.fingerprint());
}

#[test]
fn probabilities_must_sum_to_1() {
    for (probabilities, field) in [
        (vec![], "symbols"),
        (vec![1.5, -0.5], "probability"),
        (vec![0.5, 0.4], "sum"),
        (vec![f64::NAN], "probability"),
    ] {
        let error = SantaFe::from_probabilities(probabilities, 1e-3).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
}
