//! Llama-class checkpoints: configuration, weights, tokenizer, and the built-in oracle.
//!
//! A checkpoint is a folder in the Hugging Face layout: `config.json`, `*.safetensors`, `tokenizer.json`,
//! `tokenizer_config.json`. [`hub::resolve`] finds or downloads one; [`oracle::ensure`] writes one by hand.

mod checkpoint;
mod config;
mod error;
mod fields;
mod footprint;
mod fp8;
pub mod hub;
pub mod oracle;
mod rope;
mod tensors;
mod tokenizer;
mod words;

pub use checkpoint::Checkpoint;
pub use config::{Architecture, LlamaConfig};
pub use error::Error;
pub use footprint::Footprint;
pub use fp8::{Quantization, quantise_rows};
pub use rope::RopeScaling;
pub use tokenizer::{TextTokenizer, Vocabulary};
