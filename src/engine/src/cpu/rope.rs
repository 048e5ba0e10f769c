//! Rotary position embedding (Su et al., 2021) in the half-split form of Llama checkpoints.
//!
//! Angles are rounded to f32, as in transformers, with which checkpoints are trained: at position 2000 an angle is then
//! off by up to 1e-4, and a model that learned with it is matched only by doing the same.

use surprisal_model::LlamaConfig;

use super::panels::{PANEL, Row};
use crate::backend::Chunk;

/// How fast each pair of a head's dimensions turns.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    frequencies: Vec<f32>,
    scale: f64,
}

/// Cosines and sines for every row of a batch, shared by all layers and heads.
#[derive(Clone, Debug)]
pub(crate) struct Angles {
    half: usize,
    table: Vec<(f32, f32)>,
}

impl Rope {
    pub(crate) fn new(config: &LlamaConfig) -> Self {
        let scaling = config.rope_scaling;
        Self { frequencies: scaling.frequencies(config.rope_theta, config.head_dim), scale: scaling.attention_factor() }
    }

    /// The angles of a batch's rows, by their positions.
    pub(crate) fn angles(&self, chunks: &[Chunk]) -> Angles {
        let positions = chunks.iter().flat_map(|chunk| chunk.start..chunk.start + chunk.rows.len());
        let turn = |position: usize| {
            self.frequencies.iter().map(move |frequency| {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                ((cos * self.scale) as f32, (sin * self.scale) as f32)
            })
        };
        Angles { half: self.frequencies.len(), table: positions.flat_map(turn).collect() }
    }
}

impl Angles {
    /// Of `rows` rows that are not turned.
    pub(super) fn still(rows: usize, head_dim: usize) -> Self {
        Self { half: head_dim / 2, table: vec![(1.0, 0.0); rows * head_dim / 2] }
    }

    /// Rotates one head's vector, given and returned in panels: (x_i, x_{i + half}) turns by the row's angle of i.
    pub(crate) fn rotate(&self, row: usize, head: &mut [Row]) {
        let angles = &self.table[row * self.half..][..self.half];
        for (i, &(cos, sin)) in angles.iter().enumerate() {
            let j = i + self.half;
            let (x, y) = (head[i / PANEL][i % PANEL], head[j / PANEL][j % PANEL]);
            head[i / PANEL][i % PANEL] = x.mul_add(cos, -(y * sin));
            head[j / PANEL][j % PANEL] = y.mul_add(cos, x * sin);
        }
    }
}
