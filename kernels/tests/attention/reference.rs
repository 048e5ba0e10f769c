//! The reference: attention in float64.

use half::bf16;

use crate::case::{Case, Chunk, Kind};
use crate::support::{ULP, worst};

impl Case {
    /// Returns the worst error, as a multiple of the error that rounding weights and results to bf16 may cause.
    pub(crate) fn worst_error(&self, (text, at): &Chunk, out: &[bf16]) -> f64 {
        let d = self.head_size;
        let [q, keys, values] = [Kind::Queries, Kind::Keys, Kind::Values].map(|kind| self.rows(*text, kind, at.end));
        let mut errors = Vec::new();
        for (p, h) in at.clone().flat_map(|p| (0..self.heads).map(move |h| (p, h))) {
            let kv = |t: usize| (t * self.kv_heads + h / (self.heads / self.kv_heads)) * d;
            let q = &q[(p * self.heads + h) * d..][..d];
            let first = if self.window > 0 { (p + 1).saturating_sub(self.window) } else { 0 };
            let dot = |t: usize| (0..d).map(|i| q[i].to_f64() * keys[kv(t) + i].to_f64()).sum::<f64>();
            let scores: Vec<f64> = (first..=p).map(|t| dot(t) * f64::from(self.scale())).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..d {
                let term = |(t, w): (usize, &f64)| w / total * values[kv(first + t) + i].to_f64();
                let want: f64 = weights.iter().enumerate().map(term).sum();
                let size: f64 = weights.iter().enumerate().map(|x| term(x).abs()).sum();
                let got = out[((p - at.start) * self.heads + h) * d + i].to_f64();
                errors.push((got, want, ULP * (want.abs() + size) + 1e-5 * size));
            }
        }
        worst(errors)
    }
}
