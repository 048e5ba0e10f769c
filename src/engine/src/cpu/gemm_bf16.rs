//! Products of bf16 pairs with AVX512-BF16, whose dot-product instruction multiplies two pairs of values and adds both
//! products to an f32.
//!
//! Each element of the output is a chain of such instructions over the pairs of a depth block, regardless of the tile,
//! so its bits depend only on its row. The machine determines the rounding within an instruction.

use std::array;

use pulp::{Arch, Simd, WithSimd};

use super::compute::WriteMode;
use super::packed_matrix::{PairRow, bf16_bits};
use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, PanelRow};
use super::pool;

/// A row of a panel as bf16 pairs: k in the lower half, k + 1 in the upper half.
type Bf16PairRow = [u32; PANEL_WIDTH / 2];

/// Activations as panels of bf16 pairs.
#[derive(Clone, Debug)]
pub(super) struct Bf16PairMatrix {
    rows: usize,
    data: Vec<Bf16PairRow>,
}

impl Bf16PairMatrix {
    pub(super) fn new(arch: Arch, a: &PanelMatrix) -> Self {
        let mut data = vec![[0; PANEL_WIDTH / 2]; a.all().len()];
        let chunks = data.chunks_mut(256).zip(a.all().chunks(256));
        pool::for_each(chunks, |(pairs, rows)| arch.dispatch(PackPairs { rows, pairs }));
        Self { rows: a.rows(), data }
    }

    fn panel(&self, panel: usize) -> &[Bf16PairRow] {
        &self.data[panel * self.rows..][..self.rows]
    }
}

struct PackPairs<'a> {
    rows: &'a [PanelRow],
    pairs: &'a mut [Bf16PairRow],
}

impl WithSimd for PackPairs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (pairs, row) in self.pairs.iter_mut().zip(self.rows) {
            *pairs = array::from_fn(|i| bf16_bits(row[2 * i]) | bf16_bits(row[2 * i + 1]) << 16);
        }
    }
}

/// Returns the values rounded to bf16, as f32. Products read these values on machines that lack the instruction.
pub(super) fn round_to_bf16(arch: Arch, a: &PanelMatrix) -> PanelMatrix {
    struct Round<'a>(&'a mut [PanelRow]);

    impl WithSimd for Round<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            for x in self.0.as_flattened_mut() {
                *x = f32::from_bits(bf16_bits(*x) << 16);
            }
        }
    }

    let mut out = a.clone();
    pool::for_each(out.panels_mut(), |rows| arch.dispatch(Round(rows)));
    out
}

/// Returns whether this machine has the AVX512-BF16 instruction.
pub(super) fn is_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Computes `out[m] (+)= scales * sum over k of a[first + m] * w`, where `w` begins at panel `panel` of the
/// activations.
///
/// # Panics
///
/// Panics if the machine lacks the instruction.
#[inline]
pub(super) fn gemm_rows(
    a: &Bf16PairMatrix,
    panel: usize,
    first: usize,
    w: &[PairRow],
    scales: Option<&PanelRow>,
    out: &mut [PanelRow],
    write: WriteMode,
) {
    assert!(is_available());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the assertion above checks that the machine has the features.
    #[allow(unsafe_code)]
    unsafe {
        x86::gemm_rows(a, panel, first, w, scales, out, write);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (a, panel, first, w, scales, out, write);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(unsafe_code)]

    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mul_ps, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::{Bf16PairMatrix, Bf16PairRow, PANEL_WIDTH, PairRow, PanelRow, WriteMode};

    /// Number of f32 lanes in a vector.
    const LANES: usize = 16;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn gemm_rows(
        a: &Bf16PairMatrix,
        panel: usize,
        first: usize,
        w: &[PairRow],
        scales: Option<&PanelRow>,
        out: &mut [PanelRow],
        write: WriteMode,
    ) {
        let a = |p: usize, row: usize| &a.panel(panel + p)[first + row..];
        let mut row = 0;
        while row + 12 <= out.len() {
            tile::<12>(|p| &a(p, row)[..12], w, scales, &mut out[row..row + 12], write);
            row += 12;
        }
        while row + 4 <= out.len() {
            tile::<4>(|p| &a(p, row)[..4], w, scales, &mut out[row..row + 4], write);
            row += 4;
        }
        while row < out.len() {
            tile::<1>(|p| &a(p, row)[..1], w, scales, &mut out[row..=row], write);
            row += 1;
        }
    }

    /// Computes `MR` rows of two vectors each, with the sums in registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn tile<'a, const MR: usize>(
        a: impl Fn(usize) -> &'a [Bf16PairRow],
        w: &[PairRow],
        scales: Option<&PanelRow>,
        out: &mut [PanelRow],
        write: WriteMode,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        for (p, w) in w.chunks(PANEL_WIDTH / 2).enumerate() {
            let rows = &a(p)[..MR];
            for (k, w) in w.iter().enumerate().take(PANEL_WIDTH / 2) {
                let w = [pairs(&w[..LANES]), pairs(&w[LANES..])];
                for r in 0..MR {
                    let value = as_pairs(_mm512_set1_epi32(rows[r][k].cast_signed()));
                    sums[r][0] = _mm512_dpbf16_ps(sums[r][0], value, w[0]);
                    sums[r][1] = _mm512_dpbf16_ps(sums[r][1], value, w[1]);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            for (half, sum) in sums.into_iter().enumerate() {
                let out = &mut out[half * LANES..][..LANES];
                let scale = scales.map(|scales| load(&scales[half * LANES..]));
                let value = match (write, scale) {
                    (WriteMode::Set, None) => sum,
                    (WriteMode::Set, Some(scale)) => _mm512_mul_ps(sum, scale),
                    (WriteMode::Add, None) => _mm512_add_ps(load(out), sum),
                    (WriteMode::Add, Some(scale)) => _mm512_fmadd_ps(sum, scale, load(out)),
                };
                // SAFETY: the slice has 16 values.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), value) };
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(values: &[f32]) -> __m512 {
        let values = &values[..LANES];
        // SAFETY: the slice has 16 values.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pairs(values: &[u32]) -> __m512bh {
        let values = &values[..LANES];
        // SAFETY: the slice has 16 values.
        as_pairs(unsafe { _mm512_loadu_si512(values.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn as_pairs(values: std::arch::x86_64::__m512i) -> __m512bh {
        // SAFETY: both are 64 bytes, and every bit pattern is a value of both.
        unsafe { std::mem::transmute(values) }
    }
}
