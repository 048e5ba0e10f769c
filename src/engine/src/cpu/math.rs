//! Elementwise functions, written so that the compiler turns them into vector code.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::panels::{Panels, Row};

/// `e^x` for x in -87..88 (clamped to it), relative error below 2e-7. NaN stays NaN.
///
/// `x = n ln 2 + r`, `|r| <= ln 2 / 2`; `e^r` by its Taylor polynomial of degree 7; `2^n` by the exponent bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, c);
    }
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// The sum of 32 values.
#[inline(always)]
pub(crate) fn sum(row: &Row) -> f32 {
    reduce(row, |a, b| a + b)
}

/// The greatest of 32 values.
#[inline(always)]
pub(crate) fn max(row: &Row) -> f32 {
    reduce(row, |a, b| if a > b { a } else { b })
}

/// Halves put together until one value is left: a fixed tree, and vector code but for its last steps.
#[inline(always)]
fn reduce(row: &Row, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut partial = *row;
    let mut half = partial.len() / 2;
    while half > 0 {
        let (low, high) = partial.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low = join(*low, *high);
        }
        half /= 2;
    }
    partial[0]
}

/// `gate = silu(gate) * up`, elementwise; `silu(x) = x / (1 + e^-x)`.
pub(crate) fn silu_mul(arch: Arch, gate: &mut [Row], up: &[Row]) {
    struct Task<'a>(&'a mut [Row], &'a [Row]);

    impl WithSimd for Task<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            for (gate, up) in self.0.iter_mut().zip(self.1) {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = *gate / (1.0 + exp(-*gate)) * up;
                }
            }
        }
    }

    gate.par_chunks_mut(256).zip(up.par_chunks(256)).for_each(|(gate, up)| arch.dispatch(Task(gate, up)));
}

/// RMSNorm (Zhang and Sennrich, 2019): `x / sqrt(mean(x^2) + eps) * weight` for each row; the mean over `columns` values in f64.
pub(crate) fn rms_norm(arch: Arch, x: &Panels, columns: usize, eps: f64, weight: &[Row]) -> Panels {
    let scales: Vec<f32> = (0..x.rows())
        .into_par_iter()
        .with_min_len(16)
        .map(|row| arch.dispatch(RmsScale { x, row, columns, eps }))
        .collect();
    let mut out = Panels::zeros(x.rows(), x.panels());
    out.panels_mut()
        .enumerate()
        .for_each(|(p, out)| arch.dispatch(Normalise { x: x.panel(p), scales: &scales, weight: &weight[p], out }));
    out
}

/// RMSNorm of one head's vector, in place; `columns` of it are real.
pub(crate) fn head_norm(head: &mut [Row], columns: usize, eps: f64, weight: &[Row]) {
    let squares: f64 = head.as_flattened().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = (1.0 / (squares / columns as f64 + eps).sqrt()) as f32;
    for (x, weight) in head.as_flattened_mut().iter_mut().zip(weight.as_flattened()) {
        *x = *x * scale * weight;
    }
}

/// Adds a bias to every row.
pub(crate) fn add_bias(x: &mut Panels, bias: &[Row]) {
    x.panels_mut().zip(bias).for_each(|(rows, bias)| {
        for (x, bias) in rows.as_flattened_mut().chunks_exact_mut(bias.len()).flat_map(|row| row.iter_mut().zip(bias)) {
            *x += bias;
        }
    });
}

struct RmsScale<'a> {
    x: &'a Panels,
    row: usize,
    columns: usize,
    eps: f64,
}

impl WithSimd for RmsScale<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let mut squares = [0.0f64; 8];
        for panel in 0..self.x.panels() {
            for values in self.x.row(panel, self.row).chunks_exact(8) {
                for (sum, &x) in squares.iter_mut().zip(values) {
                    *sum += f64::from(x) * f64::from(x);
                }
            }
        }
        let mean = squares.iter().sum::<f64>() / self.columns as f64;
        (1.0 / (mean + self.eps).sqrt()) as f32
    }
}

struct Normalise<'a> {
    x: &'a [Row],
    scales: &'a [f32],
    weight: &'a Row,
    out: &'a mut [Row],
}

impl WithSimd for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((out, x), &scale) in self.out.iter_mut().zip(self.x).zip(self.scales) {
            for ((out, x), weight) in out.iter_mut().zip(x).zip(self.weight) {
                *out = x * scale * weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in 0..=350_000 {
            let x = (-87.0 + i as f32 * 0.0005).min(88.0);
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) / want - 1.0).abs();
            assert!(error < 2e-7, "exp({x}): relative error {error:e}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn rms_norm_matches_float64_and_ignores_padding() {
        let mut x = Panels::zeros(3, 2);
        for m in 0..3 {
            for k in 0..40 {
                x.row_mut(k / 32, m)[k % 32] = (m * 40 + k) as f32 * 0.01 - 0.3;
            }
        }
        let y = rms_norm(Arch::new(), &x, 40, 1e-5, &[[2.0; 32]; 2]);
        for m in 0..3 {
            let mean: f64 = (0..40).map(|k| f64::from(x.row(k / 32, m)[k % 32]).powi(2)).sum::<f64>() / 40.0;
            for k in 0..40 {
                let want = 2.0 * f64::from(x.row(k / 32, m)[k % 32]) / (mean + 1e-5).sqrt();
                assert!((f64::from(y.row(k / 32, m)[k % 32]) - want).abs() < 1e-6);
            }
            assert_eq!(y.row(1, m)[8..], [0.0; 24]);
        }
    }
}
