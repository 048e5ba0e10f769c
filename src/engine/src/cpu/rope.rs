//! Rotary position embedding (Su et al., 2021) in the half-split form of Llama checkpoints.
//!
//! Angles are rounded to f32 as in transformers, because checkpoints are trained with that rounding. At position 2000
//! an angle is then off by up to 1e-4, and only the same rounding reproduces a model that was trained with it.

use surprisal_model::{LlamaConfig, RopeScaling};

use super::panel_matrix::PanelRow;
use crate::backend::Chunk;

/// The rotation frequency of each pair of a head's dimensions.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    frequencies: Vec<f32>,
    scale: f64,
}

/// Cosines and sines for every row of a batch, shared by all layers and heads: `[row][half]`.
#[derive(Clone, Debug)]
pub(crate) struct Angles {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    pub(crate) fn new(config: &LlamaConfig) -> Self {
        Self::scaled(config.rope_scaling, config.rope_theta, config.head_dim)
    }

    pub(super) fn scaled(scaling: RopeScaling, theta: f64, head_dim: usize) -> Self {
        Self { frequencies: scaling.frequencies(theta, head_dim), scale: scaling.attention_factor() }
    }

    /// Returns the angles of a batch's rows, from their positions.
    pub(crate) fn angles(&self, chunks: &[Chunk]) -> Angles {
        let positions = chunks.iter().flat_map(|chunk| chunk.start..chunk.start + chunk.rows.len());
        let turn = |position: usize| {
            self.frequencies.iter().map(move |frequency| {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                ((cos * self.scale) as f32, (sin * self.scale) as f32)
            })
        };
        let (cos, sin) = positions.flat_map(turn).unzip();
        Angles { half: self.frequencies.len(), cos, sin }
    }
}

impl Angles {
    /// Returns angles that leave `rows` rows unrotated.
    pub(super) fn identity(rows: usize, head_dim: usize) -> Self {
        Self { half: head_dim / 2, cos: vec![1.0; rows * head_dim / 2], sin: vec![0.0; rows * head_dim / 2] }
    }

    /// Rotates one head's vector, given in panels: each pair (x_i, x_{i + half}) by the row's i-th angle.
    #[inline(always)]
    pub(crate) fn rotate(&self, row: usize, head: &mut [PanelRow]) {
        let at = row * self.half..(row + 1) * self.half;
        let (low, high) = head.as_flattened_mut().split_at_mut(self.half);
        for (((x, y), &cos), &sin) in low.iter_mut().zip(high).zip(&self.cos[at.clone()]).zip(&self.sin[at]) {
            (*x, *y) = (x.mul_add(cos, -(*y * sin)), y.mul_add(cos, *x * sin));
        }
    }
}
