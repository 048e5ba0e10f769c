//! Statistics of a corpus that need no model: counts of tokens and n-grams, their entropies, and two-point information.
//!
//! Start with [`NgramEntropy::of`] or [`TwoPoint::of`]: a [`TokenStore`] holds the tokens, `count` computes a
//! [`Spectrum`] of counts, an [`EntropyMethod`] estimates the entropy from the spectrum, and an [`EntropyBias`] states the
//! estimate's bias. `shuffle` permutes tokens, for the baseline of two-point information.

mod count;
mod entropy;
mod entropy_bias;
mod ngram;
mod shuffle;
mod spectrum;
mod token_store;
mod two_point;

pub use entropy::EntropyMethod;
pub use entropy_bias::EntropyBias;
pub use ngram::NgramEntropy;
pub use shuffle::shuffle_tokens;
pub use spectrum::Spectrum;
pub use token_store::{TokenStore, TokenTexts};
pub use two_point::{Baseline, TwoPoint, TwoPointEstimate};
