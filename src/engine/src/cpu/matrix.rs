//! Matrices in panels of 32 columns, and their product with a fixed order of reduction.
//!
//! `out[m][n] = sum_k a[m][k] * w[n][k]` is computed as a chain of fused multiply-adds over k within blocks of
//! [`DEPTH_BLOCK`], the blocks' sums added in order. No element's value depends on how many rows there are, on the
//! register tile it falls into, on the vector width or on the number of threads.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;

/// One row of a panel.
pub(crate) type Row = [f32; PANEL];

/// How many values of k are summed in registers before they are added to the result.
const DEPTH_BLOCK: usize = 256;

/// Rows that one task takes: enough to reuse a weight panel, few enough to share the work.
const TASK_ROWS: usize = 96;

/// How wide the vectors are that products are computed with.
pub(crate) struct VectorBits;

impl WithSimd for VectorBits {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES * 32
    }
}

/// Panels that hold `columns` columns.
pub(crate) fn panels_for(columns: usize) -> usize {
    columns.div_ceil(PANEL)
}

/// Activations: `rows` x (panels * 32) values, panel by panel, so that tasks write disjoint contiguous parts.
#[derive(Clone, Debug)]
pub(crate) struct Panels {
    rows: usize,
    panels: usize,
    data: Vec<Row>,
}

impl Panels {
    pub(crate) fn zeros(rows: usize, panels: usize) -> Self {
        Self { rows, panels, data: vec![[0.0; PANEL]; rows * panels] }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    /// All rows of one panel.
    pub(crate) fn panel(&self, panel: usize) -> &[Row] {
        &self.data[panel * self.rows..][..self.rows]
    }

    /// The first panels, apart from the rest.
    pub(crate) fn split_mut(&mut self, panels: usize) -> (&mut [Row], &mut [Row]) {
        self.data.split_at_mut(panels * self.rows)
    }

    pub(crate) fn panels_mut(&mut self) -> rayon::slice::ChunksMut<'_, Row> {
        self.data.par_chunks_mut(self.rows.max(1))
    }

    pub(crate) fn row(&self, panel: usize, row: usize) -> &Row {
        &self.data[panel * self.rows + row]
    }

    pub(crate) fn row_mut(&mut self, panel: usize, row: usize) -> &mut Row {
        &mut self.data[panel * self.rows + row]
    }

    /// Keeps the first `panels` panels.
    pub(crate) fn truncate(&mut self, panels: usize) {
        self.panels = panels;
        self.data.truncate(panels * self.rows);
    }

    /// The given rows, in the given order.
    pub(crate) fn gather(&self, rows: &[usize]) -> Self {
        let data = (0..self.panels()).flat_map(|p| rows.iter().map(move |&row| *self.row(p, row))).collect();
        Self { rows: rows.len(), panels: self.panels, data }
    }
}

/// A weight matrix `[n][k]`, packed: for each panel of 32 outputs, k rows of 32 values. Padded with zeros.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    depth: usize,
    data: Vec<Row>,
}

impl Weights {
    /// `outputs` x `depth` zeros (each rounded up to whole panels), to be filled by [`Weights::set_rows`].
    pub(crate) fn zeros(outputs: usize, depth: usize) -> Self {
        let depth = panels_for(depth) * PANEL;
        Self { depth, data: vec![[0.0; PANEL]; panels_for(outputs) * depth] }
    }

    /// Packs a row-major `[n][k]` matrix: source row `i` becomes output `output(i)`, source column `j` depth `input(j)`.
    pub(crate) fn set_rows(
        &mut self,
        source: &[f32],
        columns: usize,
        output: impl Fn(usize) -> usize,
        input: impl Fn(usize) -> usize,
    ) {
        for (i, row) in source.chunks_exact(columns).enumerate() {
            let n = output(i);
            let panel = &mut self.data[n / PANEL * self.depth..][..self.depth];
            for (j, &value) in row.iter().enumerate() {
                panel[input(j)][n % PANEL] = value;
            }
        }
    }

    pub(crate) fn panels(&self) -> usize {
        self.data.len().checked_div(self.depth).unwrap_or(0)
    }

    /// Panels of the other side: those of the activations it multiplies.
    pub(crate) fn depth_panels(&self) -> usize {
        self.depth / PANEL
    }

    /// The packed rows of one panel of outputs.
    pub(crate) fn panel(&self, panel: usize) -> &[Row] {
        &self.data[panel * self.depth..][..self.depth]
    }

    /// The weights of output `n`, in panels of depth: an embedding's row.
    pub(crate) fn output_row(&self, n: usize) -> impl Iterator<Item = Row> + '_ {
        let lane = n % PANEL;
        self.panel(n / PANEL).chunks_exact(PANEL).map(move |rows| std::array::from_fn(|k| rows[k][lane]))
    }
}

/// What becomes of the output's former value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is replaced.
    Set,
    /// It is added to: a residual connection.
    Add,
}

/// `out (+)= a * w^T`.
pub(crate) fn multiply(arch: Arch, a: &Panels, w: &Weights, out: &mut Panels, write: Write) {
    debug_assert_eq!(a.panels(), w.depth_panels());
    debug_assert_eq!(out.panels(), w.panels());
    let rows = a.rows();
    out.panels_mut()
        .enumerate()
        .flat_map(|(n, panel)| panel.par_chunks_mut(TASK_ROWS).enumerate().map(move |(block, out)| (n, block, out)))
        .for_each(|(n, block, out)| {
            let first = block * TASK_ROWS;
            arch.dispatch(Product { a, first, w: w.panel(n), out, write });
        });
    debug_assert_eq!(out.rows(), rows);
}

/// One panel of outputs for the rows from `first` on.
pub(crate) struct Product<'a> {
    pub(crate) a: &'a Panels,
    pub(crate) first: usize,
    pub(crate) w: &'a [Row],
    pub(crate) out: &'a mut [Row],
    pub(crate) write: Write,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (block, w) in self.w.chunks(DEPTH_BLOCK).enumerate() {
            let write = if block == 0 { self.write } else { Write::Add };
            let panel = |p: usize| &self.a.panel(block * (DEPTH_BLOCK / PANEL) + p)[self.first..];
            product_rows(simd, panel, w, self.out, write);
        }
    }
}

/// `out[m] (+)= sum over panels p of a(p)[m] * w[32 p ..]`, in register tiles fit for the vector width.
#[inline(always)]
pub(crate) fn product_rows<'a, S: Simd>(
    simd: S,
    a: impl Fn(usize) -> &'a [Row] + Copy,
    w: &[Row],
    out: &mut [Row],
    write: Write,
) {
    match S::F32_LANES {
        16 => columns::<S, 12, 2>(simd, a, w, out, write),
        8 => columns::<S, 6, 2>(simd, a, w, out, write),
        4 => columns::<S, 6, 4>(simd, a, w, out, write),
        _ => columns::<S, 2, 4>(simd, a, w, out, write),
    }
}

/// All columns, `NV` vectors at a time.
#[inline(always)]
fn columns<'a, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: impl Fn(usize) -> &'a [Row] + Copy,
    w: &[Row],
    out: &mut [Row],
    write: Write,
) {
    for column in (0..PANEL / S::F32_LANES).step_by(NV) {
        let mut row = 0;
        while row + MR <= out.len() {
            tile::<S, MR, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write);
            row += MR;
        }
        while row + 4 <= out.len() {
            tile::<S, 4, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write);
            row += 4;
        }
        while row < out.len() {
            tile::<S, 1, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write);
            row += 1;
        }
    }
}

/// `MR` rows of `NV` vectors, summed in registers.
#[inline(always)]
fn tile<'a, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: impl Fn(usize) -> &'a [Row],
    w: &[Row],
    out: &mut [Row],
    column: usize,
    write: Write,
) {
    let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
    for (p, w) in w.chunks(PANEL).enumerate() {
        let rows = &a(p)[..MR];
        for (k, w) in w.iter().enumerate().take(PANEL) {
            let w = &S::as_simd_f32s(w).0[column..][..NV];
            for r in 0..MR {
                let value = simd.splat_f32s(rows[r][k]);
                for v in 0..NV {
                    sums[r][v] = simd.mul_add_f32s(value, w[v], sums[r][v]);
                }
            }
        }
    }
    for (out, sums) in out[..MR].iter_mut().zip(&sums) {
        let out = &mut S::as_mut_simd_f32s(out).0[column..][..NV];
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out = match write {
                Write::Set => sum,
                Write::Add => simd.add_f32s(*out, sum),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
        (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn panels(values: &[f32], rows: usize, columns: usize) -> Panels {
        let mut out = Panels::zeros(rows, panels_for(columns));
        for m in 0..rows {
            for k in 0..columns {
                out.row_mut(k / PANEL, m)[k % PANEL] = values[m * columns + k];
            }
        }
        out
    }

    fn packed(values: &[f32], outputs: usize, depth: usize) -> Weights {
        let mut weights = Weights::zeros(outputs, depth);
        weights.set_rows(values, depth, |n| n, |k| k);
        weights
    }

    #[test]
    fn products_match_float64() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (rows, depth, outputs) in [(1, 32, 32), (5, 70, 33), (13, 600, 64), (205, 300, 96)] {
            let (a, w) = (random(&mut rng, rows * depth), random(&mut rng, outputs * depth));
            let mut out = Panels::zeros(rows, panels_for(outputs));
            let (left, right) = (panels(&a, rows, depth), packed(&w, outputs, depth));
            multiply(Arch::new(), &left, &right, &mut out, Write::Set);
            multiply(Arch::new(), &left, &right, &mut out, Write::Add);
            for m in 0..rows {
                for n in 0..outputs {
                    let terms = (0..depth).map(|k| f64::from(a[m * depth + k]) * f64::from(w[n * depth + k]));
                    let (want, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                    let got = f64::from(out.row(n / PANEL, m)[n % PANEL]);
                    assert!((got - 2.0 * want).abs() < 5e-7 * size, "{rows}x{depth}x{outputs}: {got} {want}");
                }
            }
        }
    }

    /// The heart of "same query, same bits": a row's product is the same alone, in any company, and without SIMD.
    #[test]
    fn bits_do_not_depend_on_the_batch_or_the_vector_width() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (rows, depth, outputs) = (131, 320, 64);
        let (a, w) = (random(&mut rng, rows * depth), random(&mut rng, outputs * depth));
        let (left, right) = (panels(&a, rows, depth), packed(&w, outputs, depth));
        let mut all = Panels::zeros(rows, panels_for(outputs));
        multiply(Arch::new(), &left, &right, &mut all, Write::Set);
        for m in [0, 1, 50, 95, 96, 130] {
            for arch in [Arch::new(), Arch::Scalar] {
                let mut alone = Panels::zeros(1, panels_for(outputs));
                multiply(arch, &left.gather(&[m]), &right, &mut alone, Write::Set);
                for n in 0..panels_for(outputs) {
                    assert_eq!(alone.row(n, 0).map(f32::to_bits), all.row(n, m).map(f32::to_bits));
                }
            }
        }
    }
}
