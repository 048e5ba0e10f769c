//! `PackedMatrix`: a weight matrix in f32, bf16 or int8, packed for GEMM. Each panel of 32 outputs stores its values in
//! order of k, the index over which a product sums.
//!
//! bf16 and int8 values are stored in pairs, because some instructions multiply pairs: for each output, the value of
//! each even k is next to the value of the odd k after it.

use std::ops::Range;

use pulp::Simd;

use super::panel_matrix::{PANEL_WIDTH, PanelRow, panels_for};

/// Maximum number of values of k that are summed in registers before they are added to the result.
pub(crate) const DEPTH_BLOCK: usize = 256;

/// The storage type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDtype {
    /// f32, the type of the sums.
    F32,
    /// bf16, rounded to nearest, ties to even; exact for a bf16 checkpoint.
    Bf16,
    /// int8 from -127 to 127, times a scale per output channel: the channel's greatest magnitude / 127.
    Int8,
}

impl WeightDtype {
    /// Returns the type's name on the command line and in fingerprints.
    pub fn name(self) -> &'static str {
        match self {
            WeightDtype::F32 => "f32",
            WeightDtype::Bf16 => "bf16",
            WeightDtype::Int8 => "int8",
        }
    }
}

/// Two bf16 values for each of 32 outputs: k in the lower half, k + 1 in the upper half.
pub(crate) type PairRow = [u32; PANEL_WIDTH];

/// Two int8 values for each of 32 outputs: k in the lower byte, k + 1 in the upper byte.
type BytePairRow = [i16; PANEL_WIDTH];

/// A weight matrix `[n][k]`, padded with zeros to whole panels in both dimensions.
#[derive(Clone, Debug)]
pub(crate) struct PackedMatrix {
    depth: usize,
    blocks: Vec<Range<usize>>,
    data: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    F32(Vec<PanelRow>),
    Bf16(Vec<PairRow>),
    Int8 { values: Vec<BytePairRow>, scales: Vec<PanelRow> },
}

/// The stored values of one panel of outputs for consecutive k.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PackedSlice<'a> {
    F32(&'a [PanelRow]),
    Bf16(&'a [PairRow]),
    Int8 { values: &'a [BytePairRow], scales: &'a PanelRow },
}

impl PackedMatrix {
    /// Allocates an `outputs` x `depth` matrix of zeros (both sizes rounded up to whole panels), to be filled by
    /// [`pack_rows`](Self::pack_rows).
    pub(crate) fn zeros(weight_dtype: WeightDtype, outputs: usize, depth: usize) -> Self {
        Self::zeros_in_pieces(weight_dtype, outputs, [depth])
    }

    /// Allocates a matrix of zeros, as [`zeros`](Self::zeros) does, with a depth that is divided into pieces. Each
    /// piece starts a new panel and a new depth block.
    pub(crate) fn zeros_in_pieces(
        weight_dtype: WeightDtype,
        outputs: usize,
        pieces: impl IntoIterator<Item = usize>,
    ) -> Self {
        let (mut depth, mut blocks) = (0, Vec::new());
        for piece in pieces {
            let end = depth + panels_for(piece) * PANEL_WIDTH;
            blocks.extend((depth..end).step_by(DEPTH_BLOCK).map(|k| k..end.min(k + DEPTH_BLOCK)));
            depth = end;
        }
        let panels = panels_for(outputs);
        let data = match weight_dtype {
            WeightDtype::F32 => Storage::F32(vec![[0.0; PANEL_WIDTH]; panels * depth]),
            WeightDtype::Bf16 => Storage::Bf16(vec![[0; PANEL_WIDTH]; panels * depth / 2]),
            WeightDtype::Int8 => Storage::Int8 {
                values: vec![[0; PANEL_WIDTH]; panels * depth / 2],
                scales: vec![[0.0; PANEL_WIDTH]; panels],
            },
        };
        Self { depth, blocks, data }
    }

    /// Packs a row-major `[n][k]` matrix: source row `i` becomes output `output(i)`, and source column `j` becomes
    /// depth index `input(j)`.
    pub(crate) fn pack_rows(
        &mut self,
        source: &[f32],
        columns: usize,
        output: impl Fn(usize) -> usize,
        input: impl Fn(usize) -> usize,
    ) {
        for (i, row) in source.chunks_exact(columns).enumerate() {
            let n = output(i);
            let (panel, lane) = (n / PANEL_WIDTH, n % PANEL_WIDTH);
            let first = panel * self.depth;
            match &mut self.data {
                Storage::F32(data) => {
                    for (j, &value) in row.iter().enumerate() {
                        data[first + input(j)][lane] = value;
                    }
                }
                Storage::Bf16(data) => {
                    for (j, &value) in row.iter().enumerate() {
                        let k = first + input(j);
                        data[k / 2][lane] |= bf16_bits(value) << (16 * (k % 2));
                    }
                }
                Storage::Int8 { values, scales } => {
                    let scale = row.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
                    scales[panel][lane] = scale;
                    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                    for (j, &value) in row.iter().enumerate() {
                        let k = first + input(j);
                        let byte = (value * inverse).round_ties_even() as i8;
                        values[k / 2][lane] |= i16::from(byte as u8) << (8 * (k % 2));
                    }
                }
            }
        }
    }

    /// Returns the number of panels of outputs.
    pub(crate) fn output_panels(&self) -> usize {
        let rows = match &self.data {
            Storage::F32(data) => data.len(),
            Storage::Bf16(data) => data.len() * 2,
            Storage::Int8 { values, .. } => values.len() * 2,
        };
        rows.checked_div(self.depth).unwrap_or(0)
    }

    /// Returns the depth in panels, which is also the number of panels of the activations to multiply.
    pub(crate) fn depth_panels(&self) -> usize {
        self.depth / PANEL_WIDTH
    }

    /// Returns the depth in blocks of at most [`DEPTH_BLOCK`].
    pub(crate) fn depth_blocks(&self) -> &[Range<usize>] {
        &self.blocks
    }

    /// Returns the stored weights of one panel of outputs for a range of k, whose ends must both be even.
    pub(crate) fn slice(&self, panel: usize, k: Range<usize>) -> PackedSlice<'_> {
        let (first, end) = (panel * self.depth + k.start, panel * self.depth + k.end);
        match &self.data {
            Storage::F32(data) => PackedSlice::F32(&data[first..end]),
            Storage::Bf16(data) => PackedSlice::Bf16(&data[first / 2..end / 2]),
            Storage::Int8 { values, scales } => {
                PackedSlice::Int8 { values: &values[first / 2..end / 2], scales: &scales[panel] }
            }
        }
    }

    /// Returns the weights of output `n` for one panel of the depth, such as part of an embedding.
    pub(crate) fn output_panel(&self, n: usize, panel: usize) -> PanelRow {
        let slice = self.slice(n / PANEL_WIDTH, panel * PANEL_WIDTH..(panel + 1) * PANEL_WIDTH);
        std::array::from_fn(|k| slice.value(k, n % PANEL_WIDTH))
    }
}

impl<'a> PackedSlice<'a> {
    fn value(self, k: usize, lane: usize) -> f32 {
        match self {
            PackedSlice::F32(rows) => rows[k][lane],
            PackedSlice::Bf16(pairs) => f32::from_bits(pairs[k / 2][lane] >> (16 * (k % 2)) << 16),
            PackedSlice::Int8 { values, scales } => unpack_bytes(values[k / 2][lane])[k % 2] as f32 * scales[lane],
        }
    }

    /// Returns the values in f32, unpacked into `buffer` unless they are stored as f32.
    #[inline(always)]
    pub(crate) fn unpack_f32<S: Simd>(self, simd: S, buffer: &'a mut [PanelRow]) -> &'a [PanelRow] {
        match self {
            PackedSlice::F32(rows) => rows,
            PackedSlice::Bf16(pairs) => {
                let (half, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
                for (rows, pairs) in buffer.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                    let [low, high] = rows.each_mut().map(|row| S::as_mut_simd_f32s(row).0);
                    for ((low, high), &pair) in low.iter_mut().zip(high).zip(S::as_simd_u32s(pairs).0) {
                        *low = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(pair, half));
                        *high = simd.transmute_f32s_u32s(simd.and_u32s(pair, mask));
                    }
                }
                &buffer[..2 * pairs.len()]
            }
            PackedSlice::Int8 { values, scales } => {
                for (rows, pairs) in buffer.chunks_exact_mut(2).zip(values) {
                    for lane in 0..PANEL_WIDTH {
                        let [low, high] = unpack_bytes(pairs[lane]);
                        rows[0][lane] = low as f32 * scales[lane];
                        rows[1][lane] = high as f32 * scales[lane];
                    }
                }
                &buffer[..2 * values.len()]
            }
        }
    }

    /// Returns the values as bf16 pairs, and the scales by which to multiply sums over these values; `None` if there
    /// are no scales. The pairs are unpacked into `buffer` unless the values are stored as bf16. Exact for bf16 and
    /// int8; rounds f32.
    #[inline(always)]
    pub(crate) fn unpack_bf16_pairs(self, buffer: &'a mut [PairRow]) -> (&'a [PairRow], Option<&'a PanelRow>) {
        match self {
            PackedSlice::Bf16(pairs) => (pairs, None),
            PackedSlice::F32(rows) => {
                for (pairs, rows) in buffer.iter_mut().zip(rows.chunks_exact(2)) {
                    for (lane, pair) in pairs.iter_mut().enumerate() {
                        *pair = bf16_bits(rows[0][lane]) | bf16_bits(rows[1][lane]) << 16;
                    }
                }
                (&buffer[..rows.len() / 2], None)
            }
            PackedSlice::Int8 { values, scales } => {
                for (pairs, values) in buffer.iter_mut().zip(values) {
                    for (pair, &value) in pairs.iter_mut().zip(values) {
                        let [low, high] = unpack_bytes(value);
                        // Integers up to 127 are exact in bf16: the lower half of their f32 representation is zero.
                        *pair = (low as f32).to_bits() >> 16 | (high as f32).to_bits();
                    }
                }
                (&buffer[..values.len()], Some(scales))
            }
        }
    }
}

#[inline(always)]
fn unpack_bytes(pair: i16) -> [i32; 2] {
    let pair = i32::from(pair);
    [pair << 24 >> 24, pair >> 8]
}

/// Rounds a value to bf16, ties to even, and returns the bf16's bits; NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { bits >> 16 | 0x40 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_to_bf16_matches_the_half_crate(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assert_eq!(bf16_bits(value), u32::from(bf16::from_f32(value).to_bits()));
        }

        /// Both ways to read a matrix return its values to the precision of its type.
        #[test]
        fn every_type_returns_its_values(values in proptest::collection::vec(-2.0f32..2.0, 40 * 36)) {
            for (weight_dtype, step) in [(WeightDtype::F32, 0.0), (WeightDtype::Bf16, 1.0 / 256.0), (WeightDtype::Int8, 1.01 / 254.0)] {
                let mut weights = PackedMatrix::zeros(weight_dtype, 40, 36);
                weights.pack_rows(&values, 36, |n| n, |k| k);
                for n in 0..40 {
                    let largest = values[n * 36..][..36].iter().fold(0.0f32, |max, x| max.max(x.abs()));
                    let row: Vec<f32> = (0..2).flat_map(|panel| weights.output_panel(n, panel)).collect();
                    let mut buffer = [[0; PANEL_WIDTH]; 32];
                    let (pairs, scales) = weights.slice(n / PANEL_WIDTH, 0..64).unpack_bf16_pairs(&mut buffer);
                    for (k, &got) in row.iter().enumerate() {
                        let want = if k < 36 { values[n * 36 + k] } else { 0.0 };
                        let error = if weight_dtype == WeightDtype::Int8 { step * largest } else { step * want.abs() };
                        prop_assert!((got - want).abs() <= error, "{:?}: got {}, expected {}", weight_dtype, got, want);
                        let half = pairs[k / 2][n % PANEL_WIDTH] >> (16 * (k % 2)) << 16;
                        let paired = f32::from_bits(half) * scales.map_or(1.0, |scales| scales[n % PANEL_WIDTH]);
                        let rounded = if weight_dtype == WeightDtype::F32 { f32::from_bits(bf16_bits(got) << 16) } else { got };
                        prop_assert_eq!(paired, rounded);
                    }
                }
            }
        }
    }
}
