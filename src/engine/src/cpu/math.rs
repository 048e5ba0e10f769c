//! Vectorized elementwise functions and row reductions. Their results are bit-identical for every vector width.

use pulp::{Arch, Simd, WithSimd};

use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, PanelRow};
use super::pool;

/// 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
const TAYLOR: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
/// Lower end of the range `EXP_MIN..=EXP_MAX` to which [`exp`] clamps its argument.
const EXP_MIN: f32 = -87.0;
const EXP_MAX: f32 = 88.0;

/// Returns `e^x`, for `x` clamped to -87..88, with a relative error below 2e-7. NaN stays NaN.
///
/// The argument is split into `x = n ln 2 + r` with `|r| <= ln 2 / 2`. A Taylor polynomial of degree 7 gives `e^r`, and
/// the exponent bits give `2^n`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x < EXP_MIN { EXP_MIN } else { x };
    let x = if x > EXP_MAX { EXP_MAX } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let p = TAYLOR[1..].iter().fold(TAYLOR[0], |p, &c| r.mul_add(p, c));
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// Returns [`exp`] of each lane, with the same bits as the scalar function.
#[inline(always)]
pub(crate) fn exp_lanes<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let max = simd.splat_f32s(EXP_MAX);
    exp_lanes_unchecked_max(simd, simd.select_f32s(simd.greater_than_f32s(x, max), max, x))
}

/// Returns [`exp`] of each lane, as [`exp_lanes`] does, for lanes that are at most [`EXP_MAX`].
#[inline(always)]
fn exp_lanes_unchecked_max<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value: f32| simd.splat_f32s(value);
    let min = splat(EXP_MIN);
    let x = simd.select_f32s(simd.less_than_f32s(x, min), min, x);
    let shifted = simd.mul_add_f32s(x, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = simd.sub_f32s(shifted, splat(ROUND));
    let r = simd.mul_add_f32s(n, splat(-LN_2_LOW), simd.mul_add_f32s(n, splat(-LN_2_HIGH), x));
    let mut p = splat(TAYLOR[0]);
    for &c in &TAYLOR[1..] {
        p = simd.mul_add_f32s(r, p, splat(c));
    }
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let power = simd.add_u32s(exponent, simd.splat_u32s(1.0f32.to_bits()));
    simd.mul_f32s(p, simd.transmute_f32s_u32s(power))
}

/// Replaces each value `x` of a row by `e^(x - shift)` and returns their sum. No value may be greater than `shift`.
#[inline(always)]
pub(crate) fn exp_row<S: Simd>(simd: S, row: &mut PanelRow, shift: f32) -> f32 {
    let shift = simd.splat_f32s(shift);
    for x in S::as_mut_simd_f32s(row).0 {
        *x = exp_lanes_unchecked_max(simd, simd.sub_f32s(*x, shift));
    }
    sum(simd, row)
}

/// Returns the sum of 32 values.
#[inline(always)]
pub(crate) fn sum<S: Simd>(simd: S, row: &PanelRow) -> f32 {
    let last = reduce_halves(simd, row, |a, b| simd.add_f32s(a, b));
    // pulp also sums vectors of this width by adding halves.
    if S::F32_LANES >= 8 { simd.reduce_sum_f32s(last) } else { sum_lane_halves::<S>(last) }
}

/// Returns the maximum of 32 values.
#[inline(always)]
pub(crate) fn max<S: Simd>(simd: S, row: &PanelRow) -> f32 {
    let last = reduce_halves(simd, row, |a, b| simd.select_f32s(simd.greater_than_f32s(a, b), a, b));
    simd.reduce_max_f32s(last)
}

/// Joins halves until one vector is left, in a fixed tree.
#[inline(always)]
fn reduce_halves<S: Simd>(simd: S, row: &PanelRow, join: impl Fn(S::f32s, S::f32s) -> S::f32s) -> S::f32s {
    let vectors = S::as_simd_f32s(row).0;
    let mut partial = [simd.splat_f32s(0.0); PANEL_WIDTH];
    partial[..vectors.len()].copy_from_slice(vectors);
    let mut half = vectors.len() / 2;
    while half > 0 {
        for i in 0..half {
            partial[i] = join(partial[i], partial[i + half]);
        }
        half /= 2;
    }
    partial[0]
}

/// Continues the tree of sums until one value is left.
#[inline(always)]
fn sum_lane_halves<S: Simd>(vector: S::f32s) -> f32 {
    let mut lanes = [0.0; PANEL_WIDTH];
    S::as_mut_simd_f32s(&mut lanes).0[0] = vector;
    let mut half = S::F32_LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Computes `gate = silu(gate) * up` elementwise; `silu(x) = x / (1 + e^-x)`.
pub(crate) fn silu_mul(arch: Arch, gate: &mut [PanelRow], up: &[PanelRow]) {
    struct Task<'a>(&'a mut [PanelRow], &'a [PanelRow]);

    impl WithSimd for Task<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let (gates, ups) =
                (S::as_mut_simd_f32s(self.0.as_flattened_mut()).0, S::as_simd_f32s(self.1.as_flattened()).0);
            for (gate, &up) in gates.iter_mut().zip(ups) {
                let below = simd.add_f32s(simd.splat_f32s(1.0), exp_lanes(simd, simd.neg_f32s(*gate)));
                *gate = simd.mul_f32s(simd.div_f32s(*gate, below), up);
            }
        }
    }

    pool::for_each(gate.chunks_mut(256).zip(up.chunks(256)), |(gate, up)| arch.dispatch(Task(gate, up)));
}

/// Computes RMSNorm (Zhang and Sennrich, 2019): `x / sqrt(mean(x^2) + eps) * weight` for each row. The mean over
/// `columns` values is computed in f64.
pub(crate) fn rms_norm(
    arch: Arch,
    x: &PanelMatrix,
    columns: usize,
    eps: f64,
    weight: &[PanelRow],
    out: &mut PanelMatrix,
) {
    let scales: Vec<f32> = pool::map(0..x.rows(), |row| arch.dispatch(RmsScale { x, row, columns, eps }));
    out.reshape(x.rows(), x.panels());
    pool::for_each(out.panels_mut().enumerate(), |(p, out)| {
        arch.dispatch(Normalize { x: x.panel(p), scales: &scales, weight: &weight[p], out });
    });
}

/// Computes RMSNorm of one head's vector in place; the values after `columns` are padding.
#[inline(always)]
pub(crate) fn head_norm(head: &mut [PanelRow], columns: usize, eps: f64, weight: &[PanelRow]) {
    let squares: f64 = head.as_flattened().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = (1.0 / (squares / columns as f64 + eps).sqrt()) as f32;
    for (x, weight) in head.as_flattened_mut().iter_mut().zip(weight.as_flattened()) {
        *x = *x * scale * weight;
    }
}

/// Adds a bias to every row.
pub(crate) fn add_bias(x: &mut PanelMatrix, bias: &[PanelRow]) {
    pool::for_each(x.panels_mut().zip(bias), |(rows, bias)| {
        for (x, bias) in rows.as_flattened_mut().chunks_exact_mut(bias.len()).flat_map(|row| row.iter_mut().zip(bias)) {
            *x += bias;
        }
    });
}

struct RmsScale<'a> {
    x: &'a PanelMatrix,
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

struct Normalize<'a> {
    x: &'a [PanelRow],
    scales: &'a [f32],
    weight: &'a PanelRow,
    out: &'a mut [PanelRow],
}

impl WithSimd for Normalize<'_> {
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

    /// Vectors of every width give the same bits as single values.
    #[test]
    fn rows_are_bit_identical_to_single_values() {
        struct Check;
        impl WithSimd for Check {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                for seed in 0..200 {
                    let mut row: PanelRow = std::array::from_fn(|i| ((i * 37 + seed * 101) % 997) as f32 * 0.2 - 100.0);
                    row[seed % 32] = [f32::NEG_INFINITY, 3.0, -0.0][seed % 3];
                    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    assert_eq!(max(simd, &row), greatest);
                    let want = row.map(|x| exp(x - greatest));
                    let total = exp_row(simd, &mut row, greatest);
                    assert_eq!(row.map(f32::to_bits), want.map(f32::to_bits));
                    let mut tree = want.to_vec();
                    while tree.len() > 1 {
                        let high = tree.split_off(tree.len() / 2);
                        tree.iter_mut().zip(high).for_each(|(low, high)| *low += high);
                    }
                    assert_eq!(total.to_bits(), tree[0].to_bits());
                }
            }
        }
        Arch::new().dispatch(Check);
        Arch::Scalar.dispatch(Check);
        #[cfg(target_arch = "x86_64")]
        pulp::x86::V3::try_new().into_iter().for_each(|simd| Arch::V3(simd).dispatch(Check));
    }

    #[test]
    fn rms_norm_matches_float64_and_ignores_padding() {
        let mut x = PanelMatrix::zeros(3, 2);
        for m in 0..3 {
            for k in 0..40 {
                x.row_mut(k / 32, m)[k % 32] = (m * 40 + k) as f32 * 0.01 - 0.3;
            }
        }
        let mut y = PanelMatrix::default();
        rms_norm(Arch::new(), &x, 40, 1e-5, &[[2.0; 32]; 2], &mut y);
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
