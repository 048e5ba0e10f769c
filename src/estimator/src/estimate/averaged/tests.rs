//! Tests of the averaged marginal and its limit.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::value::Estimate;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Returns the averages for documents that all have the same contexts.
fn averaged(conditional: &[f64], crossed: &[Vec<f64>]) -> Averaged {
    let context = |(x, &logprob): (usize, &f64)| Crossed { x: x % crossed.len(), logprob };
    let contexts: Vec<Vec<Crossed>> =
        crossed.iter().map(|weights| weights.iter().enumerate().map(context).collect()).collect();
    Averaged::new(conditional, &contexts, &Clusters::of_texts(0..conditional.len()))
}

/// Returns the contributions with an average over all contexts.
fn all(averaged: &Averaged) -> &[f64] {
    &averaged.curve.last().unwrap().values
}

/// Returns the extrapolation of a curve with 16 contexts.
fn extrapolation(curve: &[ContextMean]) -> Extrapolation {
    Extrapolation::new([2, 3, 4].map(|index| &curve[index].values)).unwrap()
}

/// Returns standard normal values, `count` for each document.
fn normals(documents: usize, count: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || (-2.0 * rng.random::<f64>().ln()).sqrt() * (std::f64::consts::TAU * rng.random::<f64>()).cos();
    (0..documents).map(|_| (0..count).map(|_| normal()).collect()).collect()
}

#[test]
fn averages_are_over_probabilities_and_over_all_contexts_equally() {
    let crossed = vec![[1.0, 3.0, 5.0, 7.0, 9.0].map(f64::ln).to_vec()];
    let averaged = averaged(&[2.0], &crossed);
    assert_eq!(averaged.contexts, [1, 2, 4, 5]);
    // Sums over 1, 2 and 4 consecutive contexts in a circle, and over all five.
    let products: [f64; 3] = [945.0, 4.0 * 8.0 * 12.0 * 16.0 * 10.0, 16.0 * 24.0 * 22.0 * 20.0 * 18.0];
    let expected = [products[0].ln() / 5.0, products[1].ln() / 5.0 - 2_f64.ln(), products[2].ln() / 5.0 - 4_f64.ln()];
    for (ContextMean { values, .. }, expected) in averaged.curve.iter().zip(expected.into_iter().chain([5_f64.ln()])) {
        assert!((values[0] - (2.0 - expected)).abs() < 1e-12, "{values:?}, {expected}");
    }
    let own = 2_f64.exp();
    assert!((averaged.info_nce.values[0] - (6.0 * own / (own + 25.0)).ln()).abs() < 1e-12);
    assert!((averaged.effective - 625.0 / 165.0).abs() < 1e-12);
}

#[test]
fn very_improbable_targets_lose_no_digits() {
    let near = averaged(&[-1.0], &[vec![-3.0, -4.0, -5.0]]);
    let far = averaged(&[-80_001.0], &[vec![-80_003.0, -80_004.0, -80_005.0]]);
    for (near, far) in near.curve.iter().chain([&near.info_nce]).zip(far.curve.iter().chain([&far.info_nce])) {
        assert!((near.values[0] - far.values[0]).abs() < 1e-9);
    }
    let one = averaged(&[0.0], &[vec![-9000.0, -10.0, -7000.0, -8000.0]]);
    assert!((one.effective - 1.0).abs() < 1e-12 && (all(&one)[0] - 10.0 - 4_f64.ln()).abs() < 1e-12);
}

proptest! {
    /// Jensen's inequality holds for each document, and InfoNCE is at most `ln(K + 1)`.
    #[test]
    fn estimates_fall_with_the_number_of_contexts(
        crossed in (2_usize..20).prop_flat_map(|count| prop::collection::vec(prop::collection::vec(-50.0..0.0, count), 1..5)),
        own in -50.0..0.0,
    ) {
        let conditional = vec![own; crossed.len()];
        let averaged = averaged(&conditional, &crossed);
        let count = crossed[0].len();
        for (document, weights) in crossed.iter().enumerate() {
            prop_assert!((averaged.curve[0].values[document] - (own - mean(weights))).abs() < 1e-9);
            for pair in averaged.curve.windows(2) {
                prop_assert!(pair[1].values[document] <= pair[0].values[document] + 1e-9);
            }
            prop_assert!(averaged.info_nce.values[document] <= ((count + 1) as f64).ln() + 1e-9);
        }
        prop_assert!(averaged.effective > 1.0 - 1e-9 && averaged.effective < count as f64 + 1e-9);
    }
}

#[test]
fn the_limit_of_a_power_law_in_k_is_exact() {
    for (exponent, rate) in [(1.0, 1.0), (0.7, 0.7), (0.3, 0.3)] {
        let law = |k: f64, scale: f64| vec![4.0 + scale * k.powf(-exponent), 2.0 + scale * k.powf(-exponent)];
        let limit = Extrapolation::new([&law(4.0, 1.5), &law(8.0, 1.5), &law(16.0, 1.5)]).unwrap();
        assert!((mean(&limit.values) - 3.0).abs() < 1e-9, "{:?}", limit.values);
        assert!((limit.rate.unwrap() - rate).abs() < 1e-9);
        let one_over_k = 2.0 * mean(&law(16.0, 1.5)) - mean(&law(8.0, 1.5));
        let step = mean(&law(16.0, 1.5)) - 3.0;
        let error = (one_over_k - 3.0).abs().max(0.5 * step);
        assert!((limit.error - error).abs() < 1e-9, "{} {error}", limit.error);
    }
    // A bias that falls faster than 1/k is extrapolated as if it fell as 1/k.
    let limit = Extrapolation::new([&vec![5.0], &vec![4.0], &vec![3.75]]).unwrap();
    assert_eq!((limit.values[0], limit.rate), (3.5, Some(1.0)));
    assert!((limit.error - (0.25 - 0.25 / 3.0)).abs() < 1e-12);
    let limit = Extrapolation::new([&vec![5.0], &vec![4.0], &vec![3.51]]).unwrap();
    assert!((limit.error - 0.5 * 0.49).abs() < 1e-12);
    assert!(Extrapolation::new([&vec![5.0], &vec![4.0], &vec![2.0]]).is_none());
    assert_eq!(Extrapolation::new([&vec![5.0], &vec![5.0], &vec![5.0]]).unwrap().rate, None);
}

/// The scatter of the limit's contributions gives the error that leaving out one document at a time gives.
#[test]
fn the_standard_error_of_the_limit_is_that_of_the_jackknife() {
    let documents = 200;
    let crossed: Vec<Vec<f64>> =
        normals(documents, 16, 3).iter().map(|row| row.iter().map(|z| 1.6 * z).collect()).collect();
    let conditional: Vec<f64> = normals(documents, 1, 4).iter().map(|row| 3.0 + row[0]).collect();
    let averaged = averaged(&conditional, &crossed);
    let limit = extrapolation(&averaged.curve);
    assert!(limit.rate.unwrap() < 1.0);
    let without = |document: usize| {
        let curve = averaged.curve.iter().map(|ContextMean { values, .. }| ContextMean {
            values: [&values[..document], &values[document + 1..]].concat(),
            of_clusters: Vec::new(),
            queries: Vec::new(),
        });
        mean(&extrapolation(&curve.collect::<Vec<_>>()).values)
    };
    let left_out: Vec<f64> = (0..documents).map(without).collect();
    let spread: f64 = left_out.iter().map(|value| (value - mean(&left_out)).powi(2)).sum();
    let jackknife = (spread * (documents as f64 - 1.0) / documents as f64).sqrt();
    let error = Estimate::of(&limit.values).error;
    assert!((error / jackknife - 1.0).abs() < 0.05, "{error}, {jackknife}");
}

/// The logarithm of the mean of `e^(σ z)` is `σ²/2`.
#[test]
fn the_limit_is_closer_to_the_truth_than_the_average_and_its_error_covers_the_rest() {
    for sigma in [0.5, 1.0, 1.5, 2.0] {
        let crossed: Vec<Vec<f64>> =
            normals(4000, 16, 7).iter().map(|row| row.iter().map(|z| sigma * z).collect()).collect();
        let averaged = averaged(&vec![2.0; 4000], &crossed);
        let truth = 2.0 - sigma * sigma / 2.0;
        let limit = extrapolation(&averaged.curve);
        let estimate = Estimate::of(&limit.values);
        let (biased, left) = (mean(all(&averaged)) - truth, estimate.value - truth);
        println!("σ = {sigma}: bias {biased:.4}, of the limit {left:.4} ± {:.4} ± {:.4}", estimate.error, limit.error);
        assert!(left.abs() < 0.5 * biased, "σ = {sigma}: {left} of {biased}");
        assert!(left.abs() < 3.0 * estimate.error.hypot(limit.error), "σ = {sigma}: {left}, {estimate}");
        assert!(limit.has_converged(16, averaged.effective));
    }
}

#[test]
fn few_effective_contexts_slow_rates_and_much_information_mean_no_convergence() {
    let limit = |value: f64, rate| Extrapolation { values: vec![value], derivatives: [0.0; 3], rate, error: 0.0 };
    assert!(limit(2.0, Some(0.5)).has_converged(16, 4.0));
    assert!(limit(2.0, None).has_converged(16, 16.0));
    assert!(!limit(2.8, Some(0.5)).has_converged(16, 4.0));
    assert!(!limit(2.0, Some(0.1)).has_converged(16, 4.0));
    assert!(!limit(2.0, Some(0.5)).has_converged(16, 2.9));
    // One context in sixteen is far more probable than the others.
    let crossed: Vec<Vec<f64>> = normals(500, 16, 9).iter().map(|row| row.iter().map(|z| 8.0 * z).collect()).collect();
    let averaged = averaged(&vec![40.0; 500], &crossed);
    assert!(averaged.limit.is_none_or(|limit| !limit.has_converged));
}

/// A context with the case weight `1 + ε` changes an average by its influence times `ε`.
#[test]
fn influences_are_derivatives() {
    let weights = normals(1, 11, 5).remove(0);
    let (own, step) = (1.5, 1e-6);
    for k in [2, 4, 8, 11] {
        let mean = |case: &[f64]| {
            let subset = |start: usize| {
                let all = || (start..start + k).map(|at| at % weights.len());
                -(all().map(|at| case[at] * weights[at].exp()).sum::<f64>() / all().map(|at| case[at]).sum::<f64>())
                    .ln()
            };
            let subsets = if k == weights.len() { 1 } else { weights.len() };
            (0..subsets).map(subset).sum::<f64>() / subsets as f64
        };
        let found = influences(&weights, k);
        for (context, influence) in found.iter().enumerate() {
            let case = |step: f64| (0..11).map(|at| if at == context { 1.0 + step } else { 1.0 }).collect::<Vec<f64>>();
            let derivative = (mean(&case(step)) - mean(&case(-step))) / (2.0 * step);
            assert!((influence - derivative).abs() < 1e-8, "{k}: {influence} {derivative}");
        }
        assert!(found.iter().sum::<f64>().abs() < 1e-12);
    }
    // One context: the average is vCLUB, whose queries are values of their own.
    let mean = mean(&weights);
    assert!(influences(&weights, 1).iter().zip(&weights).all(|(i, weight)| (i * 11.0 - (mean - weight)).abs() < 1e-12));
    // InfoNCE: only the differences between contexts matter.
    let all = weights.iter().map(|weight| weight.exp()).sum::<f64>() + f64::exp(own);
    let found = info_nce_influences(own, &weights);
    assert!((found[0] - found[1] - (weights[1].exp() - weights[0].exp()) / all).abs() < 1e-12);
}

/// Contexts are shared, and some explain every `y` better than others. The errors are the spread of the estimates over
/// repeated experiments; errors over the clusters of `y` alone are far too small.
#[test]
fn errors_account_for_shared_contexts() {
    let (documents, count, repetitions) = (40, 8, 300);
    let mut found: Vec<[Vec<Estimate>; 2]> = vec![[Vec::new(), Vec::new()]; 3];
    for seed in 0..repetitions {
        let own = normals(documents, 1 + count, 2 * seed);
        let good = normals(documents, 1, 2 * seed + 1);
        let contexts: Vec<Vec<Crossed>> = (0..documents)
            .map(|y| {
                let context = |k: usize| (y + k) % documents;
                let logprob = |k: usize| 0.5 * good[context(k)][0] + 0.3 * own[y][k];
                (1..=count).map(|k| Crossed { x: context(k), logprob: logprob(k) }).collect()
            })
            .collect();
        let conditional: Vec<f64> = own.iter().map(|own| 1.0 + 0.2 * own[0]).collect();
        let averaged = Averaged::new(&conditional, &contexts, &Clusters::of_texts(0..documents));
        let last = averaged.curve.last().unwrap();
        for (found, mean) in found.iter_mut().zip([&averaged.curve[0], last, &averaged.info_nce]) {
            found[0].push(Estimate::of(&mean.of_clusters));
            found[1].push(Estimate::of(&mean.values));
        }
    }
    for [found, over_y] in found {
        let values: Vec<f64> = found.iter().map(|estimate| estimate.value).collect();
        let spread = Estimate::of(&values).error * (repetitions as f64).sqrt();
        let error = |of: &[Estimate]| (of.iter().map(|e| e.error * e.error).sum::<f64>() / repetitions as f64).sqrt();
        println!("spread {spread:.4}, error {:.4}, over y alone {:.4}", error(&found), error(&over_y));
        assert!((error(&found) / spread - 1.0).abs() < 0.12 && error(&over_y) < 0.7 * spread);
        assert!(found.iter().zip(&over_y).all(|(a, b)| (a.value - b.value).abs() < 1e-12));
    }
}
