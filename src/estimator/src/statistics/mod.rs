//! Statistics of a corpus that need no model: counts of tokens and n-grams, their entropies, and two-point mutual information.
//!
//! Start with [`NgramEntropy::of`] or [`TwoPoint::of`]: a [`TokenStore`] holds the tokens, `count` makes a [`Spectrum`] of counts, and an
//! [`EntropyMethod`] turns it into an entropy.

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
