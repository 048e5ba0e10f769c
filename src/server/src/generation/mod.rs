//! Scoring and continuation of prompts, shared by `/v1/completions` and `/generate`.
//!
//! Start with `batch`, the prompts of one request. `params` validates the request's generation parameters,
//! `continuation` follows the continuation of one prompt, and `decoder` turns generated tokens into text.

pub(crate) mod batch;
pub(crate) mod continuation;
pub(crate) mod decoder;
pub(crate) mod params;
