//! Rotary position embedding (Su et al., 2021) in the half-split form of Llama checkpoints.
//!
//! Frequencies and angles are rounded to f32, as in transformers, with which checkpoints are trained: at position 2000 an
//! angle is then off by up to 1e-4, and a model that learned with it is matched only by doing the same.

use super::matrix::{PANEL, Row};

/// Cosines and sines for every position.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    half: usize,
    table: Vec<(f32, f32)>,
}

impl Rope {
    /// Angles `position * theta^(-2i / head_dim)` for positions below `positions`.
    pub(crate) fn new(head_dim: usize, theta: f64, positions: usize) -> Self {
        let half = head_dim / 2;
        let frequency = |i: usize| 1.0 / theta.powf(f64::from(2.0 * i as f32 / head_dim as f32)) as f32;
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let table = (0..positions)
            .flat_map(|position| {
                frequencies.iter().map(move |frequency| {
                    let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                    (cos as f32, sin as f32)
                })
            })
            .collect();
        Self { half, table }
    }

    /// Rotates one head's vector, given and returned in panels: (x_i, x_{i + half}) turns by the angle of i.
    pub(crate) fn rotate(&self, position: usize, head: &mut [Row]) {
        let angles = &self.table[position * self.half..][..self.half];
        for (i, &(cos, sin)) in angles.iter().enumerate() {
            let j = i + self.half;
            let (x, y) = (head[i / PANEL][i % PANEL], head[j / PANEL][j % PANEL]);
            head[i / PANEL][i % PANEL] = x.mul_add(cos, -(y * sin));
            head[j / PANEL][j % PANEL] = y.mul_add(cos, x * sin);
        }
    }
}
