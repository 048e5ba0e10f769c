//! A scorer backed by mistralrs: GGUF, in-situ quantization, and architectures that the native engine lacks.
//!
//! The crate is empty without the feature `mistralrs`.

#![cfg(feature = "mistralrs")]

mod load;
mod logprobs;
mod scorer;

pub use load::{LoadError, Source};
pub use scorer::MistralScorer;
