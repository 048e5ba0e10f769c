//! Statistics of a corpus that need no model: counts of tokens and n-grams, their entropies, and two-point information.
//!
//! Start with [`NgramEntropy::of`] or [`TwoPoint::of`]: a [`TokenStore`] holds the tokens, `count` computes a
//! [`Spectrum`] of counts, and an [`EntropyMethod`] estimates the entropy from the spectrum.

mod count;
mod entropy;
mod ngram;
mod spectrum;
mod token_store;
mod two_point;

pub use entropy::EntropyMethod;
pub use ngram::NgramEntropy;
pub use spectrum::Spectrum;
pub use token_store::{TokenStore, TokenTexts};
pub use two_point::{TwoPoint, TwoPointEstimate};
