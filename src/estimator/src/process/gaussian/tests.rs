//! Tests of the Gaussian process against its covariance matrix.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

fn process() -> Gaussian {
    Gaussian::new(64, 0.6, 0.3).unwrap()
}

/// Returns the lower triangular `L` with `L Lᵀ = matrix`.
fn cholesky(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = matrix.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            lower[i][j] = if i == j { (matrix[i][i] - sum).sqrt() } else { (matrix[i][j] - sum) / lower[j][j] };
        }
    }
    lower
}

fn covariance(process: &Gaussian, n: usize) -> Vec<Vec<f64>> {
    let r = process.autocorrelations(n);
    (0..n).map(|i| (0..n).map(|j| r[usize::abs_diff(i, j)]).collect()).collect()
}

/// Returns `lower⁻¹ vector`.
fn solve(lower: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    let mut solution: Vec<f64> = Vec::new();
    for (row, value) in lower.iter().zip(vector) {
        let sum: f64 = row.iter().zip(&solution).map(|(a, b)| a * b).sum();
        solution.push((value - sum) / row[solution.len()]);
    }
    solution
}

#[test]
fn determinants_and_densities_match_the_covariance_matrix() {
    let process = process();
    for n in [1, 2, 5, 17, 40] {
        let lower = cholesky(&covariance(&process, n));
        let ln_det: f64 = (0..n).map(|i| 2.0 * lower[i][i].ln()).sum();
        assert!((ln_det - process.ln_determinant(n)).abs() < 1e-10, "{n}");
        let values: Vec<f64> = (0..n).map(|i| ((i * i) as f64).sin()).collect();
        let square: f64 = solve(&lower, &values).iter().map(|e| e * e).sum();
        let density = -0.5 * (n as f64 * TAU.ln() + ln_det + square);
        let scored: f64 = process.logprobs(&[], &values).unwrap().iter().sum();
        assert!((density - scored).abs() < 1e-10, "{n}: {density}, {scored}");
    }
}

#[test]
fn information_equals_log_determinants_and_the_documented_sum() {
    let process = process();
    let det = |n| process.ln_determinant(n);
    for (m, n) in [(1, 1), (3, 9), (20, 7)] {
        let truth = process.mutual_information(m, n);
        assert!((truth - 0.5 * (det(m) + det(n) - det(m + n))).abs() < 1e-12);
    }
    for n in [1, 2, 30] {
        let term = |k: usize| k.min(2 * n - k) as f64 * (k as f64).powf(0.6 - 2.0);
        let sum = 0.3 * (1..2 * n).map(term).sum::<f64>();
        assert!((process.mutual_information(n, n) - sum).abs() < 1e-12);
    }
}

/// Computes `tr(Σ_(y|x)⁻¹ Σ_y) - n` from matrices: the Cholesky factor of `Σ_(y|x)` is the lower right block of the
/// Cholesky factor of the whole covariance matrix.
#[test]
fn the_vclub_limit_is_the_trace() {
    let process = process();
    for (m, n) in [(1, 1), (4, 9), (12, 5)] {
        let whole = covariance(&process, m + n);
        let lower = cholesky(&whole);
        let given: Vec<Vec<f64>> = lower[m..].iter().map(|row| row[m..].to_vec()).collect();
        let own = cholesky(&covariance(&process, n));
        // tr(G⁻ᵀ G⁻¹ C Cᵀ) is the sum of squares of G⁻¹ C.
        let column = |j: usize| -> f64 {
            let vector: Vec<f64> = own.iter().map(|row| row[j]).collect();
            solve(&given, &vector).iter().map(|e| e * e).sum()
        };
        let trace: f64 = (0..n).map(column).sum();
        let limit = process.vclub_limit(m, n);
        assert!((limit - (trace - n as f64)).abs() < 1e-9, "{m}, {n}: {limit}, {}", trace - n as f64);
        assert!(limit > process.mutual_information(m, n));
    }
}

#[test]
fn samples_have_the_correlations_of_the_process() {
    let process = process();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let samples: Vec<Vec<f64>> = (0..20_000).map(|_| process.sample(12, &mut rng)).collect();
    for (d, r) in process.autocorrelations(12).iter().enumerate() {
        let mean = samples.iter().map(|x| x[0] * x[d]).sum::<f64>() / 2e4;
        assert!((mean - r).abs() < 4.0 * ((1.0 + r * r) / 2e4).sqrt(), "distance {d}: {mean}, {r}");
    }
    let two = process.two_point(3);
    let r = process.autocorrelations(4)[3];
    assert!((two + 0.5 * (1.0 - r * r).ln()).abs() < 1e-12);
}

#[test]
fn divergence_is_the_mean_of_the_log_ratio() {
    let (process, model) = (process(), Gaussian::new(64, 0.2, 0.1).unwrap());
    assert!(process.divergence(&process, 20).abs() < 1e-12);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let sum = |of: &Gaussian, x: &[f64]| of.logprobs(&[], x).unwrap().iter().sum::<f64>();
    let ratios: Vec<f64> = (0..20_000)
        .map(|_| {
            let x = process.sample(10, &mut rng);
            sum(&process, &x) - sum(&model, &x)
        })
        .collect();
    let mean = ratios.iter().sum::<f64>() / 2e4;
    let spread = (ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 2e4).sqrt();
    let exact = process.divergence(&model, 10);
    assert!((mean - exact).abs() < 4.0 * spread / 2e4_f64.sqrt(), "{mean}, {exact}");
    assert!(exact > 0.01);
}

#[test]
fn scoring_in_two_steps_gives_the_same_bits() {
    let process = process();
    let values = process.sample(40, &mut ChaCha8Rng::seed_from_u64(6));
    let whole = process.logprobs(&[], &values).unwrap();
    assert_eq!(whole[13..], process.logprobs(&values[..13], &values[13..]).unwrap());
}

#[test]
fn errors_name_the_invalid_argument() {
    for (length, exponent, strength, field) in
        [(0, 0.5, 0.1, "length"), (8, 1.1, 0.1, "exponent"), (8, f64::NAN, 0.1, "exponent"), (8, 0.5, 0.0, "strength")]
    {
        let error = Gaussian::new(length, exponent, strength).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    assert!(process().logprobs(&[0.0; 60], &[0.0; 5]).unwrap_err().to_string().contains("at most 64"));
    assert!(process().logprobs(&[f64::NAN], &[0.0]).is_err());
}
