//! The engine: scheduler, paged KV cache, backends, and the [`Scorer`] they make.

mod scorer;

pub use scorer::{ModelCard, Query, ScoreError, ScoreFuture, Scorer, Scores, Stats};
