//! Llama-class checkpoints: configuration, weights, tokenizer, and the built-in oracle.
//!
//! A checkpoint is a folder in the Hugging Face layout: `config.json`, `*.safetensors`, `tokenizer.json`,
//! `tokenizer_config.json`. [`hub::resolve`] finds or downloads one; [`oracle::ensure`] writes the checkpoint of an
//! oracle, a toy model whose probabilities are known exactly.
//!
//! Start with [`Checkpoint`], which reads weights, and [`LlamaConfig`], which reads config.json.

mod checkpoint;
mod config;
mod error;
mod footprint;
mod fp8;
pub mod hub;
pub mod oracle;
mod tokenizer;

pub use checkpoint::{Checkpoint, ReadPurpose, fingerprint_files};
pub use config::quantization::Quantization;
pub use config::rope::RopeScaling;
pub use config::{Architecture, LlamaConfig};
pub use error::Error;
pub use footprint::Footprint;
pub use fp8::quantize_rows;
pub use tokenizer::{Piece, TextTokenizer, TokensAndOffsets, Vocabulary};
