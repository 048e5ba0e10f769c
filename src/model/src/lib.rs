//! Llama-class checkpoints: configuration, weights, tokenizer, and the built-in oracle.
