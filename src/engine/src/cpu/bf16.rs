//! Products of bf16 pairs, by the instruction that multiplies two pairs and adds both products to an f32 (AVX512-BF16).
//!
//! Each element is a chain of such instructions over the pairs of k within a block, whatever the tile: its bits depend on its
//! row alone. The instruction's own rounding is the machine's.

use std::array;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::matrix::Write;
use super::panels::{PANEL, Panels, Row};
use super::weights::{PairRow, bf16_bits};

/// A row of a panel as pairs: k in the lower half, k + 1 in the upper.
type Pairs = [u32; PANEL / 2];

/// Activations in bf16, in panels.
#[derive(Clone, Debug)]
pub(crate) struct PairPanels {
    rows: usize,
    data: Vec<Pairs>,
}

impl PairPanels {
    pub(crate) fn new(arch: Arch, a: &Panels) -> Self {
        let mut data = vec![[0; PANEL / 2]; a.all().len()];
        let chunks = data.par_chunks_mut(256).zip(a.all().par_chunks(256));
        chunks.for_each(|(pairs, rows)| arch.dispatch(Pair { rows, pairs }));
        Self { rows: a.rows(), data }
    }

    fn panel(&self, panel: usize) -> &[Pairs] {
        &self.data[panel * self.rows..][..self.rows]
    }
}

struct Pair<'a> {
    rows: &'a [Row],
    pairs: &'a mut [Pairs],
}

impl WithSimd for Pair<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (pairs, row) in self.pairs.iter_mut().zip(self.rows) {
            *pairs = array::from_fn(|i| bf16_bits(row[2 * i]) | bf16_bits(row[2 * i + 1]) << 16);
        }
    }
}

/// The same values in f32, each rounded to bf16: what products read where the instruction is missing.
pub(crate) fn rounded(arch: Arch, a: &Panels) -> Panels {
    struct Round<'a>(&'a mut [Row]);

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
    out.panels_mut().for_each(|rows| arch.dispatch(Round(rows)));
    out
}

/// Whether this machine has the instruction.
pub(crate) fn is_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `out[m] (+)= scales * sum over k of a[first + m] * w`, where `w` begins at panel `panel` of the activations.
///
/// # Panics
///
/// Where the instruction is not available.
#[inline]
pub(crate) fn product_rows(
    a: &PairPanels,
    panel: usize,
    first: usize,
    w: &[PairRow],
    scales: Option<&Row>,
    out: &mut [Row],
    write: Write,
) {
    assert!(is_available());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the features were just found to be there.
    #[allow(unsafe_code)]
    unsafe {
        x86::product_rows(a, panel, first, w, scales, out, write);
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

    use super::{PANEL, PairPanels, PairRow, Pairs, Row, Write};

    /// Lanes of a vector.
    const LANES: usize = 16;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn product_rows(
        a: &PairPanels,
        panel: usize,
        first: usize,
        w: &[PairRow],
        scales: Option<&Row>,
        out: &mut [Row],
        write: Write,
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

    /// `MR` rows of two vectors, summed in registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn tile<'a, const MR: usize>(
        a: impl Fn(usize) -> &'a [Pairs],
        w: &[PairRow],
        scales: Option<&Row>,
        out: &mut [Row],
        write: Write,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        for (p, w) in w.chunks(PANEL / 2).enumerate() {
            let rows = &a(p)[..MR];
            for (k, w) in w.iter().enumerate().take(PANEL / 2) {
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
                    (Write::Set, None) => sum,
                    (Write::Set, Some(scale)) => _mm512_mul_ps(sum, scale),
                    (Write::Add, None) => _mm512_add_ps(load(out), sum),
                    (Write::Add, Some(scale)) => _mm512_fmadd_ps(sum, scale, load(out)),
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
